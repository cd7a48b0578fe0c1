/*
 * projection.c
 *	  The registry of projections: rows of event_store.registered_projections, and
 *	  the locks on projections.
 *
 * Rows are read and written past the executor, as those of a catalog: always as of
 * now, and no privileges are needed, since functions check what the caller may do.
 * Functions are stored as text: an OID means nothing in a dump.
 *
 * A projection is locked as an object of the class of our table, by a hash of its
 * name; two names with the same hash wait for each other sometimes.  Whoever runs
 * a partition holds ACCESS SHARE on the projection and EXCLUSIVE on the partition;
 * whoever changes the projection ACCESS EXCLUSIVE on it: so nothing of it runs then.
 * All to the end of the top transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "parked.h"
#include "projection.h"
#include "projection_checkpoint.h"
#include "rebuild.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "xact_state.h"

/* The columns of event_store.registered_projections. */
enum
{
	NAME,
	OWNER,
	EVENT_TABLE,
	STATEMENT,
	FUNCTION,
	TYPES,
	CATEGORIES,
	MODE,
	PARTITIONS,
	SEARCH_PATH,
	TABLES,
	ON_ERROR,
	MAX_ATTEMPTS,
	RETRY_DELAY,
	BATCH_SIZE,
	BATCH_TIME,
	START_AFTER,
	PAUSED,
	RESTORED,
	SHADOW_SCHEMA,
	NUM_COLUMNS
};

const char *const es_projection_modes[] = {"async", "inline", "manual", NULL};
const char *const es_error_policies[] = {"stop", "park", "park_stream", NULL};

static Projection *read_row(Relation rel, HeapTuple tuple);
static HeapTuple form_row(Relation rel, Projection *projection);
pg_noreturn static void no_such_projection(const char *name);
static int	choice(const char *const *choices, const char *value);

/*
 * A scan for the rows of a projection, in the order of the primary key.  In tables where
 * the name is followed by a flag for those of a rebuild, of one kind.
 */
SysScanDesc
es_scan_projection(Relation rel, const char *name, ProjectionRows rows)
{
	ScanKeyData keys[2];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, CStringGetTextDatum(name));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(rows == ES_REBUILD_ROWS));
	return systable_beginscan(rel, es_primary_key_index(rel), true, NULL,
							  rows == ES_ALL_ROWS ? 1 : 2, keys);
}

/* NULL if there is none of that name, or not even the extension. */
Projection *
es_find_projection(const char *name)
{
	Relation	rel = es_try_open_own_table(ES_PROJECTIONS, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	Projection *projection = NULL;

	if (rel == NULL)
		return NULL;
	scan = es_scan_projection(rel, name, ES_ALL_ROWS);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		projection = read_row(rel, tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return projection;
}

Projection *
es_get_projection(const char *name)
{
	Projection *projection = es_find_projection(name);

	if (projection == NULL)
		no_such_projection(name);
	return projection;
}

static void
no_such_projection(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("projection \"%s\" does not exist", name),
			 errhint("Projections are made by event_store.create_projection(name, event_table, ...).")));
}

/* All of this database. */
List *
es_list_projections(void)
{
	Relation	rel = es_try_open_own_table(ES_PROJECTIONS, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *projections = NIL;

	if (rel == NULL)
		return NIL;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		projections = lappend(projections, read_row(rel, tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return projections;
}

static Projection *
read_row(Relation rel, HeapTuple tuple)
{
	Projection *projection = palloc0(sizeof(Projection));
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS];

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	projection->name = TextDatumGetCString(values[NAME]);
	projection->owner = DatumGetObjectId(values[OWNER]);
	projection->event_table = DatumGetObjectId(values[EVENT_TABLE]);
	projection->statement = nulls[STATEMENT] ? NULL : TextDatumGetCString(values[STATEMENT]);
	projection->function = nulls[FUNCTION] ? NULL : TextDatumGetCString(values[FUNCTION]);
	if (!nulls[TYPES])
		projection->types = es_text_set(DatumGetArrayTypePCopy(values[TYPES]), "types");
	if (!nulls[CATEGORIES])
		projection->categories = es_text_set(DatumGetArrayTypePCopy(values[CATEGORIES]), "categories");
	projection->mode = choice(es_projection_modes, TextDatumGetCString(values[MODE]));
	projection->partitions = DatumGetInt32(values[PARTITIONS]);
	projection->search_path = TextDatumGetCString(values[SEARCH_PATH]);
	projection->tables = nulls[TABLES] ? NULL : DatumGetArrayTypePCopy(values[TABLES]);
	projection->on_error = choice(es_error_policies, TextDatumGetCString(values[ON_ERROR]));
	projection->max_attempts = DatumGetInt32(values[MAX_ATTEMPTS]);
	projection->retry_delay = es_interval_us(DatumGetIntervalP(values[RETRY_DELAY]));
	projection->max_count = DatumGetInt32(values[BATCH_SIZE]);
	projection->max_time = es_interval_us(DatumGetIntervalP(values[BATCH_TIME]));
	projection->start_after = DatumGetInt64(values[START_AFTER]);
	projection->paused = DatumGetBool(values[PAUSED]);
	projection->restored = DatumGetBool(values[RESTORED]);
	projection->shadow_schema = nulls[SHADOW_SCHEMA] ? NULL : TextDatumGetCString(values[SHADOW_SCHEMA]);
	return projection;
}

static HeapTuple
form_row(Relation rel, Projection *projection)
{
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS] = {false};

	values[NAME] = CStringGetTextDatum(projection->name);
	values[OWNER] = ObjectIdGetDatum(projection->owner);
	values[EVENT_TABLE] = ObjectIdGetDatum(projection->event_table);
	nulls[STATEMENT] = projection->statement == NULL;
	if (projection->statement)
		values[STATEMENT] = CStringGetTextDatum(projection->statement);
	nulls[FUNCTION] = projection->function == NULL;
	if (projection->function)
		values[FUNCTION] = CStringGetTextDatum(projection->function);
	nulls[TYPES] = projection->types == NULL;
	if (projection->types)
		values[TYPES] = PointerGetDatum(es_text_set_array(projection->types));
	nulls[CATEGORIES] = projection->categories == NULL;
	if (projection->categories)
		values[CATEGORIES] = PointerGetDatum(es_text_set_array(projection->categories));
	values[MODE] = CStringGetTextDatum(es_projection_modes[projection->mode]);
	values[PARTITIONS] = Int32GetDatum(projection->partitions);
	values[SEARCH_PATH] = CStringGetTextDatum(projection->search_path);
	nulls[TABLES] = projection->tables == NULL;
	values[TABLES] = PointerGetDatum(projection->tables);
	values[ON_ERROR] = CStringGetTextDatum(es_error_policies[projection->on_error]);
	values[MAX_ATTEMPTS] = Int32GetDatum(projection->max_attempts);
	values[RETRY_DELAY] = IntervalPGetDatum(es_us_interval(projection->retry_delay));
	values[BATCH_SIZE] = Int32GetDatum((int32) projection->max_count);
	values[BATCH_TIME] = IntervalPGetDatum(es_us_interval(projection->max_time));
	values[START_AFTER] = Int64GetDatum(projection->start_after);
	values[PAUSED] = BoolGetDatum(projection->paused);
	values[RESTORED] = BoolGetDatum(projection->restored);
	nulls[SHADOW_SCHEMA] = projection->shadow_schema == NULL;
	if (projection->shadow_schema)
		values[SHADOW_SCHEMA] = CStringGetTextDatum(projection->shadow_schema);
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

static int
choice(const char *const *choices, const char *value)
{
	for (int i = 0; choices[i]; i++)
		if (strcmp(choices[i], value) == 0)
			return i;
	elog(ERROR, "unexpected value \"%s\"", value);
}

/* Both with the projection locked, and the workers told of it. */
void
es_insert_projection(Projection *projection)
{
	Relation	rel = table_open(es_own_table(ES_PROJECTIONS, false), RowExclusiveLock);

	CatalogTupleInsert(rel, form_row(rel, projection));
	table_close(rel, NoLock);
	CommandCounterIncrement();
	es_projections_changed_at_end();
}

void
es_update_projection(Projection *projection)
{
	Relation	rel = table_open(es_own_table(ES_PROJECTIONS, false), RowExclusiveLock);
	SysScanDesc scan = es_scan_projection(rel, projection->name, ES_ALL_ROWS);
	HeapTuple	old = systable_getnext(scan);

	if (!HeapTupleIsValid(old))
		no_such_projection(projection->name);	/* its own handler has dropped it */
	CatalogTupleUpdate(rel, &old->t_self, form_row(rel, projection));
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	es_projections_changed_at_end();
}

void
es_delete_projection(const char *name)
{
	es_delete_projection_rows(ES_CHECKPOINTS, name, ES_ALL_ROWS);
	es_delete_projection_rows(ES_PARKED, name, ES_ALL_ROWS);
	es_delete_projection_rows(ES_PROJECTIONS, name, ES_ALL_ROWS);
	es_projections_changed_at_end();
}

void
es_delete_projection_rows(const char *table, const char *name, ProjectionRows rows)
{
	Relation	rel = table_open(es_own_table(table, false), RowExclusiveLock);
	SysScanDesc scan = es_scan_projection(rel, name, rows);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		CatalogTupleDelete(rel, &tuple->t_self);
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/*
 * The event table is gone, and so are its projections; what they made stays.  Nothing of
 * them runs: that would have the table locked.
 */
void
es_forget_projections(Oid event_table)
{
	ListCell   *lc;

	foreach(lc, es_list_projections())
	{
		Projection *projection = lfirst(lc);

		if (projection->event_table != event_table)
			continue;
		if (projection->shadow_schema)
			es_drop_shadow_schema(projection);
		es_delete_projection(projection->name);
	}
}

void
es_check_projection_owner(Projection *projection)
{
	if (!has_privs_of_role(GetUserId(), projection->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of projection %s", projection->name)));
}

char *
es_arg_projection_name(FunctionCallInfo fcinfo)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);

	es_check_name(name);
	return text_to_cstring(name);
}

/*
 * The projection of that name, for a command of its owner that changes it: nothing
 * of it runs from here to the end of the transaction.
 */
Projection *
es_arg_projection(FunctionCallInfo fcinfo, const char *command)
{
	char	   *name = es_arg_projection_name(fcinfo);
	Projection *projection;

	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	projection = es_get_projection(name);
	es_check_projection_owner(projection);
	/* The event table first, as whoever drops it has it locked. */
	LockRelationOid(projection->event_table, AccessShareLock);
	es_lock_projection(name);
	projection = es_get_projection(name);
	es_check_projection_owner(projection);
	return projection;
}

static bool
lock(const char *name, uint16 what, LOCKMODE mode, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, es_own_table(ES_PROJECTIONS, false),
					   hash_bytes((const unsigned char *) name, strlen(name)), what);
	return es_lock_to_end(&tag, mode, wait);
}

void
es_lock_projection(const char *name)
{
	(void) lock(name, 0, AccessExclusiveLock, true);
}

/* For whoever runs a partition; false: somebody else does, or changes the projection. */
bool
es_lock_partition(const char *name, bool rebuild, int partition, bool wait)
{
	return lock(name, 0, AccessShareLock, wait) &&
		lock(name, partition + (rebuild ? ES_MAX_PARTITIONS : 0), ExclusiveLock, wait);
}
