/*
 * rebuild.c
 *	  rebuild_projection(), cancel_rebuild(), and the end of a rebuild.
 *
 * A rebuild runs the handler over all events again, into shadows of the projection's tables:
 * tables of the same names in a schema of its own, which comes first in the
 * search_path.  It has checkpoints of its own, so it goes on after a restart, and what is live
 * goes on meanwhile.  When it has caught up, one transaction locks the projection,
 * handles the last few events, writes what differs into the live tables, and takes over
 * the checkpoints.  Readers of the live tables see either the old or the new.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/namespace.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "handler.h"
#include "miscadmin.h"
#include "parked.h"
#include "project.h"
#include "rebuild.h"
#include "shadow.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(event_store_rebuild_projection);
PG_FUNCTION_INFO_V1(event_store_cancel_rebuild);

/* It has caught up when it is not further behind: positions. */
#define NEARLY_THERE	10000

static char *arg_schema(FunctionCallInfo fcinfo, Projection *projection);
static void run_as_owner(Projection *projection, const char *sql);
static bool is_empty(Oid schema);
static bool is_there(Projection *projection);
static bool take_over(Projection *projection);
static void end_rebuild(Projection *projection);

Datum
event_store_rebuild_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "rebuild_projection()");
	char	   *schema = arg_schema(fcinfo, projection);
	SavedSession saved;

	if (projection->shadow_schema)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is being rebuilt already", projection->name),
				 errhint("event_store.cancel_rebuild('%s') ends that.", projection->name)));
	es_check_shadows_possible(projection);
	run_as_owner(projection, psprintf("CREATE SCHEMA %s", quote_identifier(schema)));
	es_enter_handler(projection, NULL, &saved);
	es_make_shadows(projection->tables, schema);
	es_leave_handler(&saved);
	projection->shadow_schema = schema;
	es_update_projection(projection);
	es_insert_checkpoints(projection, true, es_projection_start(projection));
	PG_RETURN_VOID();
}

/* The owner's tables can have shadows, as he has said which they are. */
void
es_check_shadows_possible(Projection *projection)
{
	if (projection->tables == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("it is not known which tables projection \"%s\" maintains", projection->name),
				 errhint("Tell by event_store.alter_projection('%s', tables => '{...}').", projection->name)));
	es_check_read_model(projection->tables, projection->owner);
}

static char *
arg_schema(FunctionCallInfo fcinfo, Projection *projection)
{
	char	   *schema = PG_ARGISNULL(1) ? psprintf("%s_rebuild", projection->name) : text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (strlen(schema) >= NAMEDATALEN || schema[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the shadow schema's name must have 1 to %d bytes: \"%s\"", NAMEDATALEN - 1, schema),
				 errhint("Give another one as shadow_schema.")));
	return schema;
}

static void
run_as_owner(Projection *projection, const char *sql)
{
	SavedSession saved;

	es_enter_handler(projection, NULL, &saved);
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not execute: %s", sql);
	SPI_finish();
	es_leave_handler(&saved);
}

Datum
event_store_cancel_rebuild(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "cancel_rebuild()");

	if (projection->shadow_schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is not being rebuilt", projection->name)));
	es_cancel_rebuild(projection);
	PG_RETURN_VOID();
}

/* With the projection locked. */
void
es_cancel_rebuild(Projection *projection)
{
	es_delete_parked(projection->name, true);
	end_rebuild(projection);
}

static void
end_rebuild(Projection *projection)
{
	es_drop_shadow_schema(projection);
	es_delete_checkpoints(projection->name, true);
	projection->shadow_schema = NULL;
	es_update_projection(projection);
}

/*
 * The shadows go, whatever has become of them, and their schema, unless there is something
 * else in it.
 */
void
es_drop_shadow_schema(Projection *projection)
{
	Oid			schema = get_namespace_oid(projection->shadow_schema, true);
	SavedSession saved;

	/* Of an owner who has been dropped there is nothing left. */
	if (!OidIsValid(schema) || !SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(projection->owner)))
		return;
	es_enter_handler(projection, NULL, &saved);
	es_drop_shadows(projection->tables, projection->shadow_schema);
	es_leave_handler(&saved);
	CommandCounterIncrement();
	if (is_empty(schema))
		run_as_owner(projection, psprintf("DROP SCHEMA %s", quote_identifier(projection->shadow_schema)));
	else
		ereport(WARNING,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("schema \"%s\" stays: it is not empty", projection->shadow_schema)));
}

static bool
is_empty(Oid schema)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	bool		empty;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(NamespaceRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(schema));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	empty = !HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return empty;
}

/*
 * Ends a rebuild that has caught up; false: it has not.  In a transaction in which
 * nothing of the projection has been run yet but by this session.
 */
bool
es_finish_rebuild(const char *name)
{
	Projection *projection = es_find_projection(name);

	if (projection == NULL || projection->shadow_schema == NULL || !is_there(projection))
		return false;
	es_lock_projection(name);
	projection = es_find_projection(name);
	if (projection == NULL || projection->shadow_schema == NULL || !is_there(projection))
		return false;
	if (projection->mode == ES_MODE_INLINE)
		es_keep_appenders_out(projection);
	es_run_to_end(projection, true, PG_INT64_MAX, NIL);
	if (projection->mode == ES_MODE_INLINE)
		es_check_not_in_flight(projection);
	return take_over(projection);
}

/* Are all partitions nearly at the end, and nowhere behind what is live? */
static bool
is_there(Projection *projection)
{
	int64		newest = es_projection_end(projection).position;
	ListCell   *lc;

	foreach(lc, es_list_checkpoints(projection->name, true))
	{
		ProjectionCheckpoint *at = lfirst(lc);

		if (at->failed || at->position < newest - NEARLY_THERE)
			return false;
	}
	return true;
}

/* False: a writer in flight holds the mark below where the live ones have been. */
static bool
take_over(Projection *projection)
{
	List	   *live = es_list_checkpoints(projection->name, false);
	SavedSession saved;
	ListCell   *lc;

	foreach(lc, live)
	{
		ProjectionCheckpoint *at = lfirst(lc);
		ProjectionCheckpoint *new = es_find_checkpoint(projection->name, true, at->partition);

		/* What is of another log does not count. */
		if (new == NULL || (new->position < at->position && es_is_of_log(projection, at)))
			return false;
		at->position = new->position;
		at->event_id = new->event_id;
		at->attempts = 0;
		at->failed = false;
		at->retry_at = 0;
	}
	foreach(lc, live)
		es_save_checkpoint(lfirst(lc));
	es_enter_handler(projection, NULL, &saved);
	(void) es_replace_contents(projection->tables, projection->shadow_schema);
	es_leave_handler(&saved);
	es_take_over_parked(projection->name);
	end_rebuild(projection);
	return true;
}
