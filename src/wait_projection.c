/*
 * wait_projection.c
 *	  wait_for_projection(): reading one's own writes in a read model.
 *
 * Looks at the checkpoints with a fresh snapshot each time, and sleeps until some
 * projection has progressed.
 */
#include "postgres.h"

#include "arguments.h"
#include "catalog/pg_class.h"
#include "errors.h"
#include "feed.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "project.h"
#include "projector_state.h"
#include "storage/condition_variable.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_wait_for_projection);

static void check_may_wait(Projection *projection);
static int64 newest_position(Projection *projection);
static bool has_reached(const char *name, int64 position);

Datum
event_store_wait_for_projection(PG_FUNCTION_ARGS)
{
	char	   *name = es_arg_projection_name(fcinfo);
	MonotonicTime deadline = es_now() + es_arg_timeout(fcinfo, 2);
	Projection *projection = es_get_projection(name);
	int64		position;
	bool		reached;

	PreventCommandIfParallelMode("wait_for_projection()");
	check_may_wait(projection);
	position = PG_ARGISNULL(1) ? newest_position(projection) : PG_GETARG_INT64(1);
	es_check_not_negative("position", position);
	if (es_in_flight(projection->event_table) && projection->mode != ES_MODE_INLINE)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for projection \"%s\" behind events of this transaction", name),
				 errdetail("It has appended to the event table, and nobody sees that before it ends."),
				 errhint("Commit first.")));
	while (!(reached = has_reached(name, position)) && es_wait_for_progress(deadline))
		;
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(reached);
}

/* Whoever appends to or reads the event table. */
static void
check_may_wait(Projection *projection)
{
	if (!has_privs_of_role(GetUserId(), projection->owner) &&
		pg_class_aclmask(projection->event_table, GetUserId(), ACL_SELECT | ACL_INSERT, ACLMASK_ANY) == 0)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(projection->event_table));
}

/* Everything that can be read now. */
static int64
newest_position(Projection *projection)
{
	EventTable *table = es_event_table_open(projection->event_table, AccessShareLock, ES_FOR_READING);
	int64		position = es_newest_checkpoint(table).position;

	es_event_table_close(table);
	return position;
}

/* Waiting for one that stands still is an error. */
static bool
has_reached(const char *name, int64 position)
{
	Projection *projection = es_get_projection(name);
	List	   *checkpoints = es_list_checkpoints(name, false);
	bool		reached = checkpoints != NIL;
	ListCell   *lc;

	if (projection->mode == ES_MODE_INLINE)
		return true;
	foreach(lc, checkpoints)
	{
		ProjectionCheckpoint *at = lfirst(lc);

		if (at->position >= position)
			continue;
		reached = false;
		if (at->failed)
			ereport(ERROR,
					(errcode(ES_PROJECTION_FAILED),
					 errmsg("projection \"%s\" has failed at position " INT64_FORMAT ", before position " INT64_FORMAT,
							name, at->position, position),
					 errhint("See event_store.projections, then call event_store.resume_projection('%s').", name)));
	}
	if (!reached)
		es_check_not_paused(projection);
	return reached;
}
