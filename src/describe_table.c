/*
 * describe_table.c
 *	  What makes a table an event table, and what is wrong with one.
 *
 * There is no catalog of event tables: a table is one because it carries our
 * triggers.  So a dump, a restore, a rename or a new owner can break nothing,
 * and there is nothing to keep in step.  Indexes are found by what they index,
 * the sequence by whose it is.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "event_table.h"
#include "nodes/nodes.h"
#include "test_hooks.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

const EventColumnSpec es_columns[ES_NUM_COLUMNS] = {
	[ES_POSITION] = {"position", "bigint NOT NULL", INT8OID, true},
	[ES_STREAM] = {"stream", "text COLLATE \"C\" NOT NULL", TEXTOID, true},
	[ES_VERSION] = {"version", "bigint NOT NULL", INT8OID, true},
	[ES_EVENT_ID] = {"event_id", "uuid NOT NULL", UUIDOID, true},
	[ES_TYPE] = {"type", "text COLLATE \"C\" NOT NULL", TEXTOID, true},
	[ES_SCHEMA_VERSION] = {"schema_version", "integer NOT NULL DEFAULT 1", INT4OID, true},
	[ES_DATA] = {"data", "jsonb NOT NULL", JSONBOID, true},
	[ES_METADATA] = {"metadata", "jsonb", JSONBOID, false},
	[ES_CORRELATION_ID] = {"correlation_id", "text", TEXTOID, false},
	[ES_CAUSATION_ID] = {"causation_id", "text", TEXTOID, false},
	[ES_OCCURRED_AT] = {"occurred_at", "timestamptz", TIMESTAMPTZOID, false},
	[ES_RECORDED_AT] = {"recorded_at", "timestamptz NOT NULL", TIMESTAMPTZOID, true},
};

/*
 * The insert guard's name sorts behind whatever a user is likely to choose:
 * triggers fire in the order of their names, and it has to be the last one.
 */
const GuardSpec es_guards[ES_NUM_GUARDS] = {
	{"event_store_append_only", "UPDATE OR DELETE OR TRUNCATE", "STATEMENT",
		"_guard_change", "event_store_guard_change",
		TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE | TRIGGER_TYPE_TRUNCATE,
	TRIGGER_FIRES_ALWAYS},
	{"event_store_append_only_row", "UPDATE OR DELETE", "ROW",
		"_guard_change", "event_store_guard_change",
		TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE,
	TRIGGER_FIRES_ALWAYS},
	{"zzz_event_store_append", "INSERT", "ROW",
		"_guard_insert", "event_store_guard_insert",
		TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_INSERT,
	TRIGGER_FIRES_ON_ORIGIN},
};

static bool is_subscribed(Oid relid);
static char *column_problem(Relation rel, EventTable *table);
static int	which_guard(const Trigger *trigger);
static char *guard_problem(TriggerDesc *triggers, int kinds, EventTable *table);
static void find_indexes(Relation rel, EventTable *table);
static void find_index(Relation index, EventTable *table);
static char *index_problem(EventTable *table);
static char *sequence_problem(EventTable *table);

/*
 * Fills in the description of an open table; its problem is the first of the
 * given kinds.  A table is an event table if it has the insert guard, or, so
 * that one which has lost it can be told from other tables, any other guard,
 * our columns and the sequence.
 */
void
es_describe_table(Relation rel, int kinds, EventTable *table)
{
	/* A copy, since an invalidation can free it while we look. */
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);
	char	   *columns;
	char	   *sequence = NULL;

	memset(table, 0, sizeof(EventTable));
	table->relid = RelationGetRelid(rel);
	table->rel = rel;
	table->lockmode = AccessShareLock;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Oid			funcid = triggers->triggers[i].tgfoid;

		if (es_is_our_function(funcid, es_guards[ES_INSERT_GUARD].symbol))
			table->insert_guard = funcid;
		else if (es_is_our_function(funcid, es_guards[0].symbol))
			table->is_append_only = true;
	}
	if (!OidIsValid(table->insert_guard) && !table->is_append_only)
		return;

	columns = column_problem(rel, table);
	table->simple = table->plain &&
		(RelationGetDescr(rel)->constr == NULL || RelationGetDescr(rel)->constr->num_check == 0);
	for (int i = 0; i < triggers->numtriggers; i++)
		if (TRIGGER_FOR_INSERT(triggers->triggers[i].tgtype) &&
			which_guard(&triggers->triggers[i]) < 0)
			table->simple = false;
	if (columns == NULL)
	{
		find_indexes(rel, table);
		sequence = sequence_problem(table);
	}
	table->is_event_table = OidIsValid(table->insert_guard) ||
		(columns == NULL && OidIsValid(table->sequence));

	if (kinds & ES_PROBLEM_SHAPE)
	{
		table->problem = es_shape_problem(rel);
		if (table->problem == NULL && table->is_event_table)
			table->problem = columns;
	}
	if (table->problem == NULL)
		table->problem = guard_problem(triggers, kinds, table);
	if (!table->is_event_table)
		return;
	if (table->problem == NULL && (kinds & ES_PROBLEM_INDEX))
		table->problem = index_problem(table);
	if (table->problem == NULL && (kinds & ES_PROBLEM_SEQUENCE))
		table->problem = sequence;
	table->readable = columns == NULL && index_problem(table) == NULL &&
		OidIsValid(table->sequence);
	table->subscribed = is_subscribed(table->relid);
}

/* Is this function the one of our library with that C name? */
bool
es_is_our_function(Oid funcid, const char *symbol)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	bool		ours = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId)
	{
		bool		isnull;
		Datum		src = SysCacheGetAttr(PROCOID, tuple,
										  Anum_pg_proc_prosrc, &isnull);

		ours = !isnull && strcmp(TextDatumGetCString(src), symbol) == 0;
	}
	ReleaseSysCache(tuple);
	return ours;
}

static bool
is_subscribed(Oid relid)
{
	Relation	catalog = table_open(SubscriptionRelRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, SubscriptionRelSrrelidSrsubidIndexId,
							  true, NULL, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/* Is it not an ordinary, permanent table without relatives and rules? */
char *
es_shape_problem(Relation rel)
{
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		return pstrdup("It is a temporary table.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		return pstrdup("It is an unlogged table.");
	if (OidIsValid(rel->rd_rel->reloftype))
		return pstrdup("It is a typed table.");
	if (rel->rd_rel->relispartition)
		return pstrdup("It is a partition.");
	if (has_superclass(RelationGetRelid(rel)))
		return pstrdup("It inherits from another table.");
	if (rel->rd_rel->relhassubclass &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		return pstrdup("Another table inherits from it.");
	if (rel->rd_rules != NULL)
		return pstrdup("It has a rule.");
	return NULL;
}

/*
 * Looks up our columns.  Nullability and defaults matter too: what the table
 * lets in behind the guards is not ours to check any more.
 */
static char *
column_problem(Relation rel, EventTable *table)
{
	TupleDesc	desc = RelationGetDescr(rel);
	char	   *problem = NULL;

	table->plain = desc->natts == ES_NUM_COLUMNS;
	for (int i = 0; i < ES_NUM_COLUMNS; i++)
	{
		const EventColumnSpec *spec = &es_columns[i];
		AttrNumber	attnum = get_attnum(RelationGetRelid(rel), spec->name);
		Form_pg_attribute att;

		table->attnum[i] = Max(attnum, 0);
		table->plain &= attnum == i + 1;
		if (problem)
			continue;
		if (attnum <= 0)
		{
			problem = psprintf("Column \"%s\" is missing.", spec->name);
			continue;
		}
		att = TupleDescAttr(desc, attnum - 1);
		if (attnum != i + 1)
			problem = psprintf("Column \"%s\" is not the one that the table was made with.", spec->name);
		else if (att->atttypid != spec->type)
			problem = psprintf("Column \"%s\" has type %s, not %s.",
							   spec->name, format_type_be(att->atttypid),
							   format_type_be(spec->type));
		else if ((i == ES_STREAM || i == ES_TYPE) &&
				 att->attcollation != C_COLLATION_OID)
			problem = psprintf("Column \"%s\" does not have the collation \"C\".",
							   spec->name);
		else if (spec->not_null && !att->attnotnull)
			problem = psprintf("Column \"%s\" is not NOT NULL.", spec->name);
		else if (att->attgenerated || att->attidentity ||
				 (i == ES_POSITION && att->atthasdef))
			problem = psprintf("Column \"%s\" has a default or is generated.",
							   spec->name);
	}
	return problem;
}

/* Which guard is this trigger, or should it be, by function or name?  -1: none. */
static int
which_guard(const Trigger *trigger)
{
	for (int g = 0; g < ES_NUM_GUARDS; g++)
		if (strcmp(trigger->tgname, es_guards[g].name) == 0)
			return g;
	for (int g = 0; g < ES_NUM_GUARDS; g++)
		if (es_is_our_function(trigger->tgfoid, es_guards[g].symbol))
			return g;
	return -1;
}

bool
es_is_guard(const Trigger *trigger, const GuardSpec *spec)
{
	return strcmp(trigger->tgname, spec->name) == 0 &&
		trigger->tgtype == spec->tgtype && trigger->tgqual == NULL &&
		trigger->tgnattr == 0 && !trigger->tgdeferrable &&
		es_is_our_function(trigger->tgfoid, spec->symbol);
}

/*
 * The guards go by their names, so that the event trigger that refuses to drop
 * one knows it after it is gone.
 */
static char *
guard_problem(TriggerDesc *triggers, int kinds, EventTable *table)
{
	bool		found[ES_NUM_GUARDS] = {false};

	for (int i = 0; i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		int			g = which_guard(trigger);

		if (g < 0)
		{
			if (found[ES_INSERT_GUARD] && (kinds & ES_PROBLEM_ORDER) &&
				TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
									 TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_INSERT))
				return psprintf("Trigger \"%s\" would fire behind the guard \"%s\", which has to be the last.",
								trigger->tgname, es_guards[ES_INSERT_GUARD].name);
			continue;
		}
		found[g] = es_is_guard(trigger, &es_guards[g]);
		if (found[g] && (kinds & ES_PROBLEM_GUARD) &&
			getAutoExtensionsOfObject(TriggerRelationId, trigger->tgoid) != NIL)
			return psprintf("Guard \"%s\" depends on another extension.", trigger->tgname);
		if (!found[g] && (kinds & ES_PROBLEM_GUARD))
			return psprintf("Trigger \"%s\" is not what the guard \"%s\" has to be.",
							trigger->tgname, es_guards[g].name);
		if (found[g] && trigger->tgenabled != es_guards[g].tgenabled &&
			(kinds & (g == ES_INSERT_GUARD ? ES_PROBLEM_INSERT_STATE : ES_PROBLEM_CHANGE_STATE)))
			return psprintf("Guard \"%s\" is %s.", trigger->tgname,
							trigger->tgenabled == TRIGGER_DISABLED ? "disabled" :
							g != ES_INSERT_GUARD ? "not ENABLE ALWAYS" :
							trigger->tgenabled == TRIGGER_FIRES_ALWAYS ? "ENABLE ALWAYS, not ENABLE" :
							"ENABLE REPLICA, not ENABLE");
	}
	for (int g = 0; g < (table->is_event_table ? ES_NUM_GUARDS : ES_NUM_CHANGE_GUARDS); g++)
		if (!found[g] && (kinds & ES_PROBLEM_MISSING))
			return psprintf("Guard \"%s\" is missing.", es_guards[g].name);
	return NULL;
}

/* Does the index begin with these columns, ascending, and cover all rows? */
static bool
index_has_keys(Relation index, int nkeys, const AttrNumber *keys)
{
	Form_pg_index form = index->rd_index;

	if (form->indnkeyatts != nkeys)
		return false;
	for (int i = 0; i < nkeys; i++)
		if (form->indkey.values[i] != keys[i] || index->rd_indoption[i] != 0)
			return false;
	return true;
}

/*
 * An index's expressions or predicate as they are stored.  The relation cache
 * would fold constants in them, and so run functions of the table's owner as
 * whoever looks at the table.
 */
static Node *
stored_expression(Relation index, AttrNumber column)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(RelationGetRelid(index)));
	Node	   *node = NULL;
	bool		isnull;
	Datum		datum;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	datum = SysCacheGetAttr(INDEXRELID, tuple, column, &isnull);
	if (!isnull)
		node = stringToNode(TextDatumGetCString(datum));
	ReleaseSysCache(tuple);
	return node;
}

static bool
is_category_expression(Node *expressions, AttrNumber stream)
{
	FuncExpr   *call;

	if (expressions == NULL || list_length((List *) expressions) != 1 ||
		!IsA(linitial((List *) expressions), FuncExpr))
		return false;
	call = linitial_node(FuncExpr, (List *) expressions);
	return list_length(call->args) == 1 && IsA(linitial(call->args), Var) &&
		linitial_node(Var, call->args)->varattno == stream &&
		es_is_our_function(call->funcid, "event_store_category");
}

static bool
is_not_null_predicate(Node *predicate, AttrNumber column)
{
	NullTest   *test = (NullTest *) predicate;

	return predicate != NULL && IsA(predicate, NullTest) &&
		test->nulltesttype == IS_NOT_NULL && IsA(test->arg, Var) &&
		castNode(Var, test->arg)->varattno == column;
}

/*
 * Finds the indexes by what they are, not by their names.  The unique ones
 * carry the rules; the others may be missing, the readers then filter.
 */
static void
find_indexes(Relation rel, EventTable *table)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		find_index(index, table);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
}

static void
find_index(Relation index, EventTable *table)
{
	AttrNumber *attnum = table->attnum;
	AttrNumber	version_keys[] = {attnum[ES_STREAM], attnum[ES_VERSION]};
	AttrNumber	category_keys[] = {0, attnum[ES_POSITION]};
	AttrNumber	correlation_keys[] = {attnum[ES_CORRELATION_ID], attnum[ES_POSITION]};
	Form_pg_index form = index->rd_index;
	Oid			indexid = RelationGetRelid(index);
	Node	   *expressions = stored_expression(index, Anum_pg_index_indexprs);
	Node	   *predicate = stored_expression(index, Anum_pg_index_indpred);
	bool		partial = predicate != NULL;
	bool		category = is_category_expression(expressions, attnum[ES_STREAM]);
	bool		correlation = is_not_null_predicate(predicate, attnum[ES_CORRELATION_ID]);

	if ((partial && !correlation && !is_not_null_predicate(predicate, attnum[ES_CAUSATION_ID])) ||
		(expressions != NULL && !category) ||
		form->indisexclusion)
		table->simple = false;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisvalid || !form->indisready)
		return;
	if (form->indisunique)
	{
		if (partial || !form->indimmediate)
			return;
		if (index_has_keys(index, 1, &attnum[ES_POSITION]))
			table->position_index = indexid;
		else if (index_has_keys(index, 2, version_keys) &&
				 index->rd_indcollation[0] == C_COLLATION_OID)
			table->version_index = indexid;
		else if (index_has_keys(index, 1, &attnum[ES_EVENT_ID]))
			table->event_id_index = indexid;
	}
	else if (category && !partial && index_has_keys(index, 2, category_keys) &&
			 index->rd_indcollation[0] == C_COLLATION_OID)
		table->category_index = indexid;
	else if ((correlation || !partial) && index_has_keys(index, 2, correlation_keys))
		table->correlation_index = indexid;
}

static char *
index_problem(EventTable *table)
{
	const char *missing = !OidIsValid(table->position_index) ? "(position)" :
		!OidIsValid(table->version_index) ? "(stream, version)" :
		!OidIsValid(table->event_id_index) ? "(event_id)" : NULL;

	return missing ? psprintf("The unique index on %s is missing or not valid.", missing) : NULL;
}

/* How many sequences does the column own?  Sets one of them. */
int
es_owned_sequences(Oid relid, AttrNumber column, Oid *sequence)
{
	Relation	catalog = table_open(DependRelationId, AccessShareLock);
	ScanKeyData key[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	int			count = 0;

	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&key[2], Anum_pg_depend_refobjsubid, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(column));
	scan = systable_beginscan(catalog, DependReferenceIndexId, true, NULL, 3, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		if (depend->classid == RelationRelationId && depend->objsubid == 0 &&
			depend->deptype == DEPENDENCY_AUTO &&
			get_rel_relkind(depend->objid) == RELKIND_SEQUENCE)
		{
			*sequence = depend->objid;
			count++;
		}
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return count;
}

/* Finds the sequence that the position column owns; it must be the only one. */
static char *
sequence_problem(EventTable *table)
{
	Oid			sequence = InvalidOid;
	int			count = es_owned_sequences(table->relid, table->attnum[ES_POSITION], &sequence);
	HeapTuple	tuple;
	Form_pg_sequence form;
	char	   *problem = NULL;

	if (count == 0)
		return pstrdup("Column \"position\" owns no sequence.");
	if (count > 1)
		return pstrdup("Column \"position\" owns more than one sequence.");
	table->sequence = sequence;

	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	if (!HeapTupleIsValid(tuple))
		return pstrdup("Column \"position\" owns no sequence.");
	form = (Form_pg_sequence) GETSTRUCT(tuple);
	if (form->seqcache != 1 && !ES_BROKEN(ES_BREAK_SEQUENCE_CACHE))
		problem = psprintf("Its sequence has CACHE " INT64_FORMAT ", not 1.", form->seqcache);
	else if (form->seqincrement != 1)
		problem = psprintf("Its sequence has INCREMENT " INT64_FORMAT ", not 1.", form->seqincrement);
	else if (form->seqcycle)
		problem = pstrdup("Its sequence is CYCLE.");
	else if (form->seqmin != 1)
		problem = psprintf("Its sequence has MINVALUE " INT64_FORMAT ", not 1.", form->seqmin);
	else if (form->seqmax != ES_MAX_POSITION)
		problem = psprintf("Its sequence has MAXVALUE " INT64_FORMAT ", not " INT64_FORMAT ".",
						   form->seqmax, ES_MAX_POSITION);
	ReleaseSysCache(tuple);
	if (problem == NULL &&
		get_rel_persistence(sequence) != RELPERSISTENCE_PERMANENT)
		problem = pstrdup("Its sequence is not permanent.");
	if (problem == NULL && OidIsValid(table->position_index))
	{
		/* In this order: others go on drawing and committing. */
		int64		greatest = es_last_position(table, SnapshotSelf, 0, PG_INT64_MAX);
		int64		last = es_sequence_last_value(sequence, NULL);

		if (last < greatest)
			problem = psprintf("Its sequence stands at " INT64_FORMAT ", below the greatest position, " INT64_FORMAT ".",
							   last, greatest);
	}
	return problem;
}
