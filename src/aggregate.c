/*
 * aggregate.c
 *	  The registry of aggregates: create_aggregate(), drop_aggregate().
 *
 * A reducer is stored as text, since an OID means nothing in a dump.  So each
 * use looks it up, and checks it again: it may have been replaced.
 *
 * Rows are read and written past the executor, as those of a catalog.  Whoever
 * takes snapshots holds ROW EXCLUSIVE on event_store.aggregates to the end of
 * his transaction, whoever changes an aggregate SHARE ROW EXCLUSIVE: so no
 * snapshot by the old definition appears after the new one.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "aggregate.h"
#include "arguments.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "snapshot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(event_store_create_aggregate);
PG_FUNCTION_INFO_V1(event_store_drop_aggregate);

/* The columns of event_store.aggregates. */
enum
{
	NAME,
	OWNER,
	REDUCER,
	INITIAL,
	SNAPSHOT_EVERY,
	SCHEMA_VERSION,
	NUM_COLUMNS
};

/* One row, or none, of the open table. */
typedef struct AggregateScan
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
} AggregateScan;

static AggregateScan open_registry(const char *command, const text *name);
static void close_registry(AggregateScan *found);
static Aggregate *read_row(AggregateScan *found);
static void check_reducer(Oid funcid, const text *name);
static void check_owner(Aggregate *aggregate);
static void check_replacement(Aggregate *old, Datum *values);

static void
find_row(AggregateScan *found, const text *name, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, NAME + 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(name));
	found->scan = systable_beginscan(found->rel, es_primary_key_index(found->rel), true,
									 snapshot, 1, &key);
	found->tuple = systable_getnext(found->scan);
}

/* NULL if there is none of that name. */
Aggregate *
es_find_aggregate(const text *name, Snapshot snapshot)
{
	Oid			relid = es_own_table("aggregates", true);
	AggregateScan found;
	Aggregate  *aggregate;

	found.rel = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;
	if (found.rel == NULL)
		return NULL;
	find_row(&found, name, snapshot);
	aggregate = read_row(&found);
	systable_endscan(found.scan);
	table_close(found.rel, AccessShareLock);
	return aggregate;
}

static Aggregate *
read_row(AggregateScan *found)
{
	Aggregate  *aggregate;
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS];

	if (!HeapTupleIsValid(found->tuple))
		return NULL;
	heap_deform_tuple(found->tuple, RelationGetDescr(found->rel), values, nulls);
	aggregate = palloc(sizeof(Aggregate));
	aggregate->name = DatumGetTextPCopy(values[NAME]);
	aggregate->owner = DatumGetObjectId(values[OWNER]);
	aggregate->reducer = TextDatumGetCString(values[REDUCER]);
	aggregate->initial = DatumGetJsonbPCopy(values[INITIAL]);
	aggregate->snapshot_every = nulls[SNAPSHOT_EVERY] ? 0 : DatumGetInt32(values[SNAPSHOT_EVERY]);
	aggregate->schema_version = DatumGetInt32(values[SCHEMA_VERSION]);
	return aggregate;
}

pg_noreturn static void
no_such_aggregate(const text *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("aggregate \"%s\" does not exist", text_to_cstring(name)),
			 errhint("Aggregates are made by event_store.create_aggregate(name, reducer).")));
}

Aggregate *
es_get_aggregate(const text *name, Snapshot snapshot)
{
	Aggregate  *aggregate = es_find_aggregate(name, snapshot);

	if (aggregate == NULL)
		no_such_aggregate(name);
	return aggregate;
}

bool
es_is_aggregate_owner(Aggregate *aggregate)
{
	return has_privs_of_role(GetUserId(), aggregate->owner);
}

static void
check_owner(Aggregate *aggregate)
{
	if (!es_is_aggregate_owner(aggregate))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of aggregate %s", text_to_cstring(aggregate->name))));
}

/* The row type of events, event_store.event. */
Oid
es_event_type(void)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("event"),
									   ObjectIdGetDatum(get_namespace_oid("event_store", false)));

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"event_store.event\" does not exist")));
	return type;
}

/* The function that the stored signature means now, checked. */
Oid
es_reducer_of(Aggregate *aggregate)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		funcid;

	/* Not by DirectFunctionCall1(), to which NULL is an internal error. */
	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(aggregate->reducer);
	fcinfo->args[0].isnull = false;
	funcid = to_regprocedure(fcinfo);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s, the reducer of aggregate \"%s\", does not exist",
						aggregate->reducer, text_to_cstring(aggregate->name)),
				 errhint("If it has another name or schema now, tell with event_store.create_aggregate(..., or_replace => true).")));
	check_reducer(DatumGetObjectId(funcid), aggregate->name);
	return DatumGetObjectId(funcid);
}

/* Why a function cannot be a reducer; NULL if it can. */
static const char *
reducer_problem(Form_pg_proc proc)
{
	if (proc->prokind != PROKIND_FUNCTION)
		return "It is not an ordinary function.";
	if (proc->pronargs != 2 || OidIsValid(proc->provariadic) ||
		proc->proargtypes.values[0] != JSONBOID ||
		proc->proargtypes.values[1] != es_event_type())
		return "Its parameters are others.";
	if (proc->proretset)
		return "It returns a set.";
	if (proc->prorettype != JSONBOID)
		return "It returns another type.";
	if (isAnyTempNamespace(proc->pronamespace))
		return "It is temporary.";
	if (proc->provolatile == PROVOLATILE_VOLATILE)
		return "It is VOLATILE, as are all functions that do not say otherwise.";
	return NULL;
}

static void
check_reducer(Oid funcid, const text *name)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	const char *problem;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", funcid)));
	problem = reducer_problem((Form_pg_proc) GETSTRUCT(tuple));
	ReleaseSysCache(tuple);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("%s cannot be the reducer of aggregate \"%s\"",
						format_procedure(funcid), text_to_cstring(name)),
				 errdetail_internal("%s", problem),
				 errhint("A reducer is a function (state jsonb, event event_store.event) RETURNS jsonb, IMMUTABLE or STABLE, since the same events must always give the same state.")));
}

/*
 * A name holds for the whole database, and whoever uses it runs the reducer.
 * So to make one takes what CREATE SCHEMA and CREATE PUBLICATION take.
 */
Datum
event_store_create_aggregate(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	bool		or_replace = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	Oid			reducer;
	AggregateScan found;
	Aggregate  *old;
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS] = {false};
	HeapTuple	tuple;

	es_check_name(name);
	if (PG_ARGISNULL(1))
		es_null_argument("reducer");
	if (PG_ARGISNULL(2))
		es_null_argument("initial");
	if (PG_ARGISNULL(4))
		es_null_argument("schema_version");
	if (!PG_ARGISNULL(3) && PG_GETARG_INT32(3) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("snapshot_every must be at least 1, not %d", PG_GETARG_INT32(3)),
				 errhint("Pass NULL for no snapshots.")));
	es_check_schema_version(PG_GETARG_INT32(4));
	reducer = PG_GETARG_OID(1);
	check_reducer(reducer, name);
	if (es_function_aclcheck(reducer, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(reducer));
	if (es_database_aclcheck(MyDatabaseId, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_DATABASE, get_database_name(MyDatabaseId));

	values[NAME] = PointerGetDatum(name);
	values[REDUCER] = CStringGetTextDatum(format_procedure_qualified(reducer));
	values[INITIAL] = PG_GETARG_DATUM(2);
	values[SNAPSHOT_EVERY] = PG_GETARG_DATUM(3);
	nulls[SNAPSHOT_EVERY] = PG_ARGISNULL(3);
	values[SCHEMA_VERSION] = PG_GETARG_DATUM(4);

	found = open_registry("create_aggregate()", name);
	old = read_row(&found);
	if (old && !or_replace)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("aggregate \"%s\" already exists", text_to_cstring(name))));
	if (old)
	{
		check_owner(old);
		check_replacement(old, values);
	}
	else
		es_check_snapshots_are_own(name);
	values[OWNER] = ObjectIdGetDatum(old ? old->owner : GetUserId());
	tuple = heap_form_tuple(RelationGetDescr(found.rel), values, nulls);
	if (old)
		CatalogTupleUpdate(found.rel, &found.tuple->t_self, tuple);
	else
		CatalogTupleInsert(found.rel, tuple);
	close_registry(&found);
	PG_RETURN_VOID();
}

Datum
event_store_drop_aggregate(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	AggregateScan found;
	Aggregate  *aggregate;

	es_check_name(name);
	found = open_registry("drop_aggregate()", name);
	aggregate = read_row(&found);
	if (aggregate == NULL)
		no_such_aggregate(name);
	check_owner(aggregate);
	CatalogTupleDelete(found.rel, &found.tuple->t_self);
	close_registry(&found);
	es_forget_aggregate_snapshots(name);
	PG_RETURN_VOID();
}

/* For a change of the aggregate of that name; the lock stays. */
static AggregateScan
open_registry(const char *command, const text *name)
{
	AggregateScan found;

	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	found.rel = table_open(es_own_table("aggregates", false), ShareRowExclusiveLock);
	find_row(&found, name, SnapshotSelf);
	return found;
}

static void
close_registry(AggregateScan *found)
{
	systable_endscan(found->scan);
	table_close(found->rel, NoLock);
}

/* Snapshots by another reducer have another schema version. */
static void
check_replacement(Aggregate *old, Datum *values)
{
	int32		version = DatumGetInt32(values[SCHEMA_VERSION]);
	bool		same = strcmp(old->reducer, TextDatumGetCString(values[REDUCER])) == 0 &&
		compareJsonbContainers(&old->initial->root, &DatumGetJsonbP(values[INITIAL])->root) == 0;

	if (version > old->schema_version || (same && version == old->schema_version))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("schema_version %d is taken: aggregate \"%s\" is at schema_version %d",
					version, text_to_cstring(old->name), old->schema_version),
			 same ? 0 : errdetail("The reducer or the initial state is another one."),
			 errhint("Give a greater one, so that older snapshots are not taken for new states.")));
}
