/*
 * check_ddl.c
 *	  The event triggers: no DDL command leaves an event table, or an
 *	  append-only table, less guarded than it was.
 *
 * A restore builds such a table in steps, in an order that pg_restore -j does
 * not fix, and its owner may only mend it in steps too.  So each command is
 * refused only for what it can have broken, not for what is not there yet.
 * Whatever slips by all the same, an append finds (SE005).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "commands/event_trigger.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "compat.h"
#include "errors.h"
#include "event_table.h"
#include "event_type.h"
#include "executor/spi.h"
#include "feed_marks.h"
#include "fmgr.h"
#include "inline.h"
#include "nodes/parsenodes.h"
#include "projection.h"
#include "snapshot.h"
#include "table_ddl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_check_ddl);
PG_FUNCTION_INFO_V1(event_store_check_sequence);
PG_FUNCTION_INFO_V1(event_store_check_rewrite);
PG_FUNCTION_INFO_V1(event_store_check_drop);

/* As returned by pg_event_trigger_table_rewrite_reason(). */
#define REWRITE_PERSISTENCE	0x01
#define REWRITE_COLUMN		0x04

static int	kinds_to_check(Node *parsetree);
static int	kinds_of_alter_table(AlterTableStmt *stmt);
static bool changes_column_type(Node *parsetree);
pg_noreturn static void append_only_violation(const char *what, const char *detail, Oid relid);
static void check_object(Oid classid, Oid objid, int kinds);
static void check_table(Oid relid, int kinds);
static void check_sequence_stays(RangeVar *name, List *owned_by);
pg_noreturn static void refuse(Oid relid, const char *problem);
static void check_dropped_trigger(const char *schema, const char *relname, const char *trigger);
static void check_dropped_column(Oid relid, const char *column);
static bool is_guarded(Oid relid);
static Oid	table_of(Oid catalog, Oid index, AttrNumber oid_column, Oid oid);

static EventTriggerData *
event_trigger_data(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function must be called as an event trigger")));
	return (EventTriggerData *) fcinfo->context;
}

Datum
event_store_check_ddl(PG_FUNCTION_ARGS)
{
	Node	   *parsetree = event_trigger_data(fcinfo)->parsetree;
	int			kinds = kinds_to_check(parsetree);
	bool		changes_type = changes_column_type(parsetree);
	bool		changes_trigger = (kinds & ES_PROBLEM_INSERT_STATE) || IsA(parsetree, RenameStmt);
	SPITupleTable *commands;

	SPI_connect();
	if (SPI_execute("SELECT classid, objid FROM pg_catalog.pg_event_trigger_ddl_commands()"
					" WHERE objid IS NOT NULL", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the DDL commands");
	commands = SPI_tuptable;
	for (uint64 i = 0; i < commands->numvals; i++)
	{
		bool		isnull;
		Oid			classid = DatumGetObjectId(SPI_getbinval(commands->vals[i], commands->tupdesc, 1, &isnull));
		Oid			objid = DatumGetObjectId(SPI_getbinval(commands->vals[i], commands->tupdesc, 2, &isnull));

		if (classid == RelationRelationId && objid == es_table_being_rewritten)
			es_table_being_rewritten = InvalidOid;
		check_object(classid, objid, kinds);
		if (changes_trigger && classid == RelationRelationId && get_rel_relkind(objid) == RELKIND_RELATION)
			es_check_inline_triggers(objid);
		if (changes_trigger && classid == TriggerRelationId)
			es_check_inline_triggers(table_of(TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, objid));
		if (changes_type && classid == RelationRelationId && is_guarded(objid))
			append_only_violation("change a column's type in",
								  "The stored values would mean something else.", objid);
	}
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* What can this command have broken? */
static int
kinds_to_check(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_AlterTableStmt:
			return kinds_of_alter_table((AlterTableStmt *) parsetree);
		case T_CreateTrigStmt:
			/* A trigger that is replaced is no longer ENABLE ALWAYS. */
			return ES_PROBLEM_SHAPE | ES_PROBLEM_GUARD | ES_PROBLEM_ORDER |
				(((CreateTrigStmt *) parsetree)->replace ? ES_PROBLEM_CHANGE_STATE : 0);
		case T_RenameStmt:
		case T_AlterObjectDependsStmt:
			return ES_PROBLEM_SHAPE | ES_PROBLEM_GUARD | ES_PROBLEM_ORDER;
		default:
			return ES_PROBLEM_SHAPE;
	}
}

static int
kinds_of_alter_table(AlterTableStmt *stmt)
{
	int			kinds = ES_PROBLEM_SHAPE;
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		switch (((AlterTableCmd *) lfirst(lc))->subtype)
		{
			case AT_EnableTrig:
			case AT_EnableReplicaTrig:
			case AT_DisableTrig:
			case AT_EnableTrigAll:
			case AT_DisableTrigAll:
			case AT_EnableTrigUser:
			case AT_DisableTrigUser:
				kinds |= ES_PROBLEM_CHANGE_STATE | ES_PROBLEM_INSERT_STATE;
				break;
			case AT_EnableAlwaysTrig:
				kinds |= ES_PROBLEM_INSERT_STATE;
				break;
			case AT_DropConstraint:
			case AT_DropColumn:
				kinds |= ES_PROBLEM_INDEX;
				break;
			default:
				break;
		}
	}
	return kinds;
}

/* Types can be exchanged without a rewrite, and the values mean something else. */
static bool
changes_column_type(Node *parsetree)
{
	ListCell   *lc;

	if (IsA(parsetree, AlterTableStmt))
		foreach(lc, ((AlterTableStmt *) parsetree)->cmds)
			if (((AlterTableCmd *) lfirst(lc))->subtype == AT_AlterColumnType)
				return true;
	return false;
}

static void
check_object(Oid classid, Oid objid, int kinds)
{
	Oid			relid = InvalidOid;

	if (classid == TriggerRelationId)
		relid = table_of(TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, objid);
	else if (classid == RewriteRelationId)
		relid = table_of(RewriteRelationId, RewriteOidIndexId, Anum_pg_rewrite_oid, objid);
	else if (classid == RelationRelationId)
	{
		char		relkind = get_rel_relkind(objid);

		if (relkind == RELKIND_SEQUENCE)
		{
			int32		column;

			if (sequenceIsOwned(objid, DEPENDENCY_AUTO, &relid, &column))
				check_table(relid, ES_PROBLEM_SEQUENCE);
			return;
		}
		if (relkind == RELKIND_RELATION || relkind == RELKIND_FOREIGN_TABLE ||
			relkind == RELKIND_PARTITIONED_TABLE)
			relid = objid;
	}
	if (!OidIsValid(relid))
		return;

	check_table(relid, kinds);
	/* A command on a relative can have made it one. */
	if (classid == RelationRelationId)
	{
		ListCell   *lc;
		Relation	catalog = table_open(InheritsRelationId, AccessShareLock);
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;

		foreach(lc, find_inheritance_children(relid, NoLock))
			check_table(lfirst_oid(lc), ES_PROBLEM_SHAPE);
		ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber,
					F_OIDEQ, ObjectIdGetDatum(relid));
		scan = systable_beginscan(catalog, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
			check_table(((Form_pg_inherits) GETSTRUCT(tuple))->inhparent, ES_PROBLEM_SHAPE);
		systable_endscan(scan);
		table_close(catalog, AccessShareLock);
	}
}

/* The table of a trigger or rule. */
static Oid
table_of(Oid catalogid, Oid indexid, AttrNumber oid_column, Oid oid)
{
	Relation	catalog = table_open(catalogid, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			relid = InvalidOid;

	ScanKeyInit(&key, oid_column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(catalog, indexid, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		relid = catalogid == TriggerRelationId
			? ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid
			: ((Form_pg_rewrite) GETSTRUCT(tuple))->ev_class;
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return relid;
}

/* Has it a trigger that is one of the guards?  Tells most tables off unopened. */
static bool
is_guarded(Oid relid)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			funcid = ((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid;

		for (int g = 0; g < ES_NUM_GUARDS; g++)
			found |= es_is_our_function(funcid, es_guards[g].symbol);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

static void
check_table(Oid relid, int kinds)
{
	Relation	rel;
	EventTable	table;

	if (!is_guarded(relid))
		return;
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		return;
	if (relid == es_table_being_mended)
		kinds &= ~ES_PROBLEM_CHANGE_STATE;
	es_describe_table(rel, kinds, &table);
	if (table.problem)
		refuse(relid, table.problem);
	if (table.is_event_table)
		es_wake_at_end(relid);
	relation_close(rel, NoLock);
}

static void
refuse(Oid relid, const char *problem)
{
	ereport(ERROR,
			(errcode(ES_UNGUARDED_EVENT_TABLE),
			 errmsg("the command would leave the append-only table \"%s\" unguarded",
					get_rel_name(relid)),
			 errdetail_internal("%s", problem),
			 errhint("Its guards, and in an event table the columns, unique indexes and sequence it was made with, stay as they are; you can add to them."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, get_namespace_name(get_rel_namespace(relid))),
			 err_generic_string(PG_DIAG_TABLE_NAME, get_rel_name(relid))));
}

/*
 * Refuses DROP SEQUENCE and ALTER SEQUENCE ... OWNED BY where an event table
 * owns the sequence.  Before the command: afterwards nobody knows whose it was.
 */
Datum
event_store_check_sequence(PG_FUNCTION_ARGS)
{
	Node	   *parsetree = event_trigger_data(fcinfo)->parsetree;
	ListCell   *lc;

	if (IsA(parsetree, AlterSeqStmt))
	{
		AlterSeqStmt *stmt = (AlterSeqStmt *) parsetree;

		foreach(lc, stmt->options)
			if (strcmp(lfirst_node(DefElem, lc)->defname, "owned_by") == 0)
				check_sequence_stays(stmt->sequence, (List *) lfirst_node(DefElem, lc)->arg);
	}
	else if (IsA(parsetree, DropStmt) &&
			 ((DropStmt *) parsetree)->removeType == OBJECT_SEQUENCE)
	{
		foreach(lc, ((DropStmt *) parsetree)->objects)
			check_sequence_stays(makeRangeVarFromNameList((List *) lfirst(lc)), NIL);
	}
	return PointerGetDatum(NULL);
}

/* The new owner is named as in OWNED BY; NIL if the sequence goes. */
static void
check_sequence_stays(RangeVar *name, List *owned_by)
{
	Oid			sequence = RangeVarGetRelid(name, NoLock, true);
	Oid			relid;
	int32		column;

	if (!OidIsValid(sequence) || get_rel_relkind(sequence) != RELKIND_SEQUENCE ||
		!sequenceIsOwned(sequence, DEPENDENCY_AUTO, &relid, &column) ||
		column != get_attnum(relid, es_columns[ES_POSITION].name) ||
		!is_guarded(relid))
		return;
	if (list_length(owned_by) > 1 &&
		RangeVarGetRelid(makeRangeVarFromNameList(list_truncate(list_copy(owned_by), list_length(owned_by) - 1)),
						 NoLock, true) == relid &&
		get_attnum(relid, strVal(llast(owned_by))) == column)
		return;
	refuse(relid, "Column \"position\" owns no sequence.");
}

/* ALTER TABLE may fill new columns, but not rewrite what is stored. */
Datum
event_store_check_rewrite(PG_FUNCTION_ARGS)
{
	Oid			relid;
	int			reason;
	bool		isnull;

	event_trigger_data(fcinfo);
	SPI_connect();
	if (SPI_execute("SELECT pg_catalog.pg_event_trigger_table_rewrite_oid(),"
					" pg_catalog.pg_event_trigger_table_rewrite_reason()", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not ask which table is rewritten");
	relid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	reason = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	SPI_finish();

	/* In mid-rewrite the table cannot be looked at closely. */
	if (!is_guarded(relid))
		return PointerGetDatum(NULL);
	if (reason & (REWRITE_COLUMN | REWRITE_PERSISTENCE))
		append_only_violation("rewrite", "The command would rewrite every stored row.", relid);
	es_begin_rewrite(relid);
	return PointerGetDatum(NULL);
}

static void
append_only_violation(const char *what, const char *detail, Oid relid)
{
	ereport(ERROR,
			(errcode(ES_APPEND_ONLY_VIOLATION),
			 errmsg("cannot %s \"%s\": it is append-only", what, get_rel_name(relid)),
			 errdetail_internal("%s", detail),
			 errhint("Add a column instead, or read the old form as the new one."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, get_namespace_name(get_rel_namespace(relid))),
			 err_generic_string(PG_DIAG_TABLE_NAME, get_rel_name(relid))));
}

/*
 * Refuses to drop a guard while the table stays, and columns of an append-only
 * table (an event table's are looked at after every command).  Whichever way:
 * what depends on something else goes with it.  Dropping the table is its
 * owner's right; our own tables follow.
 */
Datum
event_store_check_drop(PG_FUNCTION_ARGS)
{
	SPITupleTable *dropped;

	event_trigger_data(fcinfo);
	SPI_connect();
	if (SPI_execute("SELECT object_type, objid, address_names[1], address_names[2], address_names[3]"
					" FROM pg_catalog.pg_event_trigger_dropped_objects()",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the dropped objects");
	dropped = SPI_tuptable;
	for (uint64 i = 0; i < dropped->numvals; i++)
	{
		HeapTuple	row = dropped->vals[i];
		TupleDesc	desc = dropped->tupdesc;
		char	   *type = SPI_getvalue(row, desc, 1);
		bool		isnull;

		if (strcmp(type, "table") == 0)
		{
			Oid			relid = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));

			es_forget_snapshots(relid);
			es_forget_event_types(relid);
			es_forget_projections(relid);
			es_forget_mark(relid);
			if (es_find_feed(relid))
				es_wake_at_end(relid);
		}
		else if (strcmp(type, "table column") == 0)
			check_dropped_column(DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull)),
								 SPI_getvalue(row, desc, 5));
		else if (strcmp(type, "trigger") == 0)
			check_dropped_trigger(SPI_getvalue(row, desc, 3), SPI_getvalue(row, desc, 4),
								  SPI_getvalue(row, desc, 5));
	}
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* By the other guards one sees that the table was guarded. */
static void
check_dropped_trigger(const char *schema, const char *relname, const char *trigger)
{
	bool		is_guard = false;
	Oid			relid = get_relname_relid(relname, get_namespace_oid(schema, true));

	for (int g = 0; g < ES_NUM_GUARDS; g++)
		is_guard |= strcmp(trigger, es_guards[g].name) == 0;
	if (OidIsValid(relid))
		es_inline_trigger_dropped(relid, trigger);
	if (!is_guard || !OidIsValid(relid) || !is_guarded(relid))
		return;
	ereport(ERROR,
			(errcode(ES_UNGUARDED_EVENT_TABLE),
			 errmsg("cannot drop guard \"%s\" of table \"%s\"", trigger, relname),
			 errdetail("It is what keeps the table append-only."),
			 errhint("Drop the table, if you want to be rid of it."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, schema),
			 err_generic_string(PG_DIAG_TABLE_NAME, relname)));
}

/* By OID: a command can rename the table in its midst. */
static void
check_dropped_column(Oid relid, const char *column)
{
	if (get_rel_name(relid) == NULL || !is_guarded(relid) ||
		OidIsValid(get_trigger_oid(relid, es_guards[ES_INSERT_GUARD].name, true)))
		return;
	append_only_violation(psprintf("drop column \"%s\" of", column),
						  "What has been recorded is never changed, by nobody.", relid);
}
