/*
 * table_ddl.c
 *	  Making and mending: create_event_table(), drop_event_table(), guard(),
 *	  make_append_only(), check_guards().
 *
 * All by SQL commands, so that ownership, privileges, dependencies and
 * invalidation are those of the commands.  They run as the caller, with a
 * search_path of pg_catalog alone and every name qualified.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "arguments.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "compat.h"
#include "errors.h"
#include "event_table.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "table_ddl.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_create_event_table);
PG_FUNCTION_INFO_V1(event_store_drop_event_table);
PG_FUNCTION_INFO_V1(event_store_guard);
PG_FUNCTION_INFO_V1(event_store_make_append_only);
PG_FUNCTION_INFO_V1(event_store_check_guards);

/*
 * The table whose guards are being replaced: between CREATE OR REPLACE TRIGGER
 * and ENABLE ALWAYS it is not in order.
 */
Oid			es_table_being_mended = InvalidOid;

static void run(const char *format,...) pg_attribute_printf(1, 2);
static int	enter_sql(void);
static void leave_sql(int nest_level);
static void open_owned_table(Oid relid, LOCKMODE lockmode, Relation *rel);
static void create_guard(const char *table, const GuardSpec *guard, bool replace);
static void enable_guard(const char *table, const GuardSpec *guard);
static char *sequence_name(const char *schema, const char *relname);

/* As psql understands it: quoted or not, with or without schema. */
static RangeVar *
parse_name(FunctionCallInfo fcinfo)
{
	List	   *names;

	if (PG_ARGISNULL(0))
		es_null_argument("name");
	names = textToQualifiedNameList(PG_GETARG_TEXT_PP(0));
	if (list_length(names) > 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of an event table: \"%s\"",
						text_to_cstring(PG_GETARG_TEXT_PP(0))),
				 errhint("Give a table's name, or a schema's and a table's.")));
	return makeRangeVarFromNameList(names);
}

Datum
event_store_create_event_table(PG_FUNCTION_ARGS)
{
	RangeVar   *name = parse_name(fcinfo);
	bool		if_not_exists = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	Oid			namespace = RangeVarGetCreationNamespace(name);
	Oid			relid = get_relname_relid(name->relname, namespace);
	const char *schema = get_namespace_name(namespace);
	const char *table;
	const char *sequence;
	int			nest_level;

	if (isTempNamespace(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("an event table cannot be temporary")));
	if (OidIsValid(relid) && if_not_exists)
	{
		es_event_table_close(es_event_table_open(relid, AccessShareLock, ES_FOR_GUARDING));
		PG_RETURN_OID(relid);
	}
	if (OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", name->relname)));

	nest_level = enter_sql();
	table = quote_qualified_identifier(schema, name->relname);
	sequence = sequence_name(schema, name->relname);
	run("CREATE TABLE %s ("
		"position %s PRIMARY KEY, stream %s, version %s, event_id %s UNIQUE,"
		"type %s, schema_version %s, data %s, metadata %s, correlation_id %s,"
		"causation_id %s, occurred_at %s, recorded_at %s, UNIQUE (stream, version))",
		table,
		es_columns[ES_POSITION].definition, es_columns[ES_STREAM].definition,
		es_columns[ES_VERSION].definition, es_columns[ES_EVENT_ID].definition,
		es_columns[ES_TYPE].definition, es_columns[ES_SCHEMA_VERSION].definition,
		es_columns[ES_DATA].definition, es_columns[ES_METADATA].definition,
		es_columns[ES_CORRELATION_ID].definition, es_columns[ES_CAUSATION_ID].definition,
		es_columns[ES_OCCURRED_AT].definition, es_columns[ES_RECORDED_AT].definition);
	run("CREATE SEQUENCE %s MAXVALUE " INT64_FORMAT " OWNED BY %s.position",
		sequence, ES_MAX_POSITION, table);
	run("CREATE INDEX ON %s (event_store.category(stream), position)", table);
	run("CREATE INDEX ON %s (correlation_id, position) WHERE correlation_id IS NOT NULL", table);
	run("CREATE INDEX ON %s (causation_id, position) WHERE causation_id IS NOT NULL", table);
	run("CREATE INDEX ON %s USING brin (recorded_at) WITH (autosummarize = on, pages_per_range = 32)", table);
	for (int i = 0; i < ES_NUM_GUARDS; i++)
		create_guard(table, &es_guards[i], false);
	for (int i = 0; i < ES_NUM_GUARDS; i++)
		enable_guard(table, &es_guards[i]);
	leave_sql(nest_level);

	PG_RETURN_OID(get_relname_relid(name->relname, namespace));
}

Datum
event_store_drop_event_table(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_LOOKING);
	bool		cascade = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	char	   *name = es_qualified_name(table->rel);
	int			nest_level;

	es_event_table_close(table);
	nest_level = enter_sql();
	run("DROP TABLE %s %s", name, cascade ? "CASCADE" : "RESTRICT");
	leave_sql(nest_level);
	PG_RETURN_VOID();
}

static void
report(ReturnSetInfo *result, const char *what)
{
	Datum		value = CStringGetTextDatum(what);
	bool		isnull = false;

	tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
}

/* Creates guards that are missing or not what they have to be, and enables them. */
static void
mend_guards(Oid relid, const char *name, int nguards, ReturnSetInfo *result)
{
	Relation	rel = table_open(relid, NoLock);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	table_close(rel, NoLock);
	for (int g = 0; g < nguards; g++)
	{
		const GuardSpec *guard = &es_guards[g];
		const Trigger *trigger = NULL;

		for (int i = 0; triggers && i < triggers->numtriggers; i++)
			if (es_is_guard(&triggers->triggers[i], guard))
				trigger = &triggers->triggers[i];
		if (trigger && trigger->tgenabled == guard->tgenabled)
			continue;
		PG_TRY();
		{
			es_table_being_mended = relid;
			if (trigger == NULL)
				create_guard(name, guard, true);
			enable_guard(name, guard);
		}
		PG_FINALLY();
		{
			es_table_being_mended = InvalidOid;
		}
		PG_END_TRY();
		if (result)
			report(result, psprintf("%s trigger %s", trigger ? "enabled" : "created", guard->name));
	}
}

/* What its sequence is called in SQL. */
static char *
sequence_of(EventTable *table)
{
	Relation	rel = relation_open(table->sequence, AccessShareLock);
	char	   *name = es_qualified_name(rel);

	relation_close(rel, NoLock);
	return name;
}

/* Lets the sequence stand at the greatest position, if it stands lower. */
static void
raise_sequence(EventTable *table, const char *sequence, int64 last, ReturnSetInfo *result)
{
	int64		greatest = OidIsValid(table->position_index) ? es_last_position(table, SnapshotSelf, 0, PG_INT64_MAX) : 0;

	if (last >= greatest)
		return;
	run("SELECT pg_catalog.setval(%s, " INT64_FORMAT ")",
		quote_literal_cstr(sequence), greatest);
	report(result, psprintf("set sequence %s to " INT64_FORMAT, sequence, greatest));
}

static void
mend_sequence(Oid relid, const char *name, ReturnSetInfo *result)
{
	Relation	rel = table_open(relid, NoLock);
	EventTable	table;
	char	   *sequence;

	es_describe_table(rel, ES_PROBLEM_SEQUENCE, &table);
	if (!OidIsValid(table.sequence))
	{
		sequence = sequence_name(get_namespace_name(RelationGetNamespace(rel)),
								 RelationGetRelationName(rel));
		run("CREATE SEQUENCE %s MAXVALUE " INT64_FORMAT, sequence, ES_MAX_POSITION);
		run("ALTER SEQUENCE %s OWNER TO %s", sequence,
			quote_identifier(GetUserNameFromId(rel->rd_rel->relowner, false)));
		report(result, psprintf("created sequence %s", sequence));
		raise_sequence(&table, sequence, 0, result);
		run("ALTER SEQUENCE %s OWNED BY %s.position", sequence, name);
	}
	else if (table.problem)
	{
		sequence = sequence_of(&table);
		raise_sequence(&table, sequence, es_sequence_last_value(table.sequence, NULL), result);
		es_describe_table(rel, ES_PROBLEM_SEQUENCE, &table);
		if (table.problem)
		{
			run("ALTER SEQUENCE %s INCREMENT 1 MINVALUE 1 MAXVALUE " INT64_FORMAT " START 1 CACHE 1 NO CYCLE",
				sequence, ES_MAX_POSITION);
			report(result, psprintf("set the properties of sequence %s", sequence));
		}
	}
	table_close(rel, NoLock);
}

Datum
event_store_guard(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	rel;
	Oid			relid = es_arg_table(fcinfo);
	char	   *name;
	EventTable	table;
	int			nest_level;

	if (get_rel_relkind(relid) != RELKIND_RELATION)
		es_event_table_open(relid, AccessShareLock, ES_FOR_LOOKING);	/* raises SE004 */
	open_owned_table(relid, ShareRowExclusiveLock, &rel);
	name = es_qualified_name(rel);
	es_describe_table(rel, 0, &table);
	table_close(rel, NoLock);
	if (!table.is_event_table && !table.is_append_only)
		es_event_table_open(relid, NoLock, ES_FOR_LOOKING); /* raises SE004 */

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	nest_level = enter_sql();
	if (table.is_event_table)
		mend_sequence(relid, name, result);
	mend_guards(relid, name, table.is_event_table ? ES_NUM_GUARDS : ES_NUM_CHANGE_GUARDS, result);
	leave_sql(nest_level);

	rel = table_open(relid, NoLock);
	es_describe_table(rel, ES_PROBLEM_ANY, &table);
	if (table.problem)
		ereport(ERROR,
				(errcode(ES_UNGUARDED_EVENT_TABLE),
				 errmsg("cannot put the guards of \"%s\" in order", RelationGetRelationName(rel)),
				 errdetail_internal("%s", table.problem),
				 errhint("That has to be undone by hand."),
				 errtable(rel)));
	/* A restore may have filled it, which wakes nobody. */
	if (table.is_event_table)
		es_wake_at_end(relid);
	table_close(rel, NoLock);
	return (Datum) 0;
}

Datum
event_store_make_append_only(PG_FUNCTION_ARGS)
{
	Relation	rel;
	Oid			relid;
	char	   *name;
	char	   *problem;
	int			nest_level;

	if (PG_ARGISNULL(0))
		es_null_argument("target");
	relid = PG_GETARG_OID(0);
	open_owned_table(relid, ShareRowExclusiveLock, &rel);
	problem = es_shape_problem(rel);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be made append-only", RelationGetRelationName(rel)),
				 errdetail_internal("%s", problem),
				 errtable(rel)));
	name = es_qualified_name(rel);
	table_close(rel, NoLock);
	nest_level = enter_sql();
	mend_guards(relid, name, ES_NUM_CHANGE_GUARDS, NULL);
	leave_sql(nest_level);
	PG_RETURN_VOID();
}

Datum
event_store_check_guards(PG_FUNCTION_ARGS)
{
	Oid			relid;
	Relation	rel;
	EventTable	table = {0};

	if (PG_ARGISNULL(0))
		es_null_argument("target");
	relid = PG_GETARG_OID(0);
	rel = try_relation_open(relid, AccessShareLock);
	if (rel && rel->rd_rel->relkind == RELKIND_RELATION)
		es_describe_table(rel, ES_PROBLEM_ANY, &table);
	/* Keeps no lock, since it takes no privilege. */
	if (rel)
		relation_close(rel, AccessShareLock);
	if (!table.is_event_table && !table.is_append_only)
		es_event_table_open(relid, AccessShareLock, ES_FOR_LOOKING);	/* raises SE004 */
	if (table.problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(table.problem));
}

/* Opens an ordinary table that the current user owns. */
static void
open_owned_table(Oid relid, LOCKMODE lockmode, Relation *rel)
{
	/* Ownership first: the lock is a strong one. */
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (get_rel_relkind(relid) != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an ordinary table", name)));
	if (!es_is_table_owner(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, name);
	if (IsCatalogRelationOid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a system catalog", name)));
	*rel = try_relation_open(relid, lockmode);
	if (*rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
}

static void
create_guard(const char *table, const GuardSpec *guard, bool replace)
{
	run("CREATE %s TRIGGER %s BEFORE %s ON %s FOR EACH %s EXECUTE FUNCTION event_store.%s()",
		replace ? "OR REPLACE" : "", guard->name, guard->events, table, guard->level, guard->function);
}

static void
enable_guard(const char *table, const GuardSpec *guard)
{
	run("ALTER TABLE %s ENABLE %s TRIGGER %s", table,
		guard->tgenabled == TRIGGER_FIRES_ALWAYS ? "ALWAYS" : "", guard->name);
}

/* As serial would name it, the name shortened, and numbered if it is taken. */
static char *
sequence_name(const char *schema, const char *relname)
{
	return quote_qualified_identifier(schema,
									  ChooseRelationName(relname, "position", "seq",
														 get_namespace_oid(schema, false), false));
}

/* Runs an SQL command or query, whose result is thrown away. */
static void
run(const char *format,...)
{
	StringInfoData sql;
	int			needed;
	int			code;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	code = SPI_execute(sql.data, false, 0);
	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", sql.data, SPI_result_code_string(code));
}

static int
enter_sql(void)
{
	int			nest_level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("client_min_messages", "warning",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	return nest_level;
}

static void
leave_sql(int nest_level)
{
	SPI_finish();
	AtEOXact_GUC(true, nest_level);
}
