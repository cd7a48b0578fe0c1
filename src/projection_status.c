/*
 * projection_status.c
 *	  What the view of all projections cannot find in our tables.
 *
 * Nothing is raised, and nobody waited for; what the caller may not know, or cannot be
 * told, is null.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "arguments.h"
#include "feed.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "projector_state.h"
#include "utils/acl.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(event_store_projection_lag);
PG_FUNCTION_INFO_V1(event_store_projector_pid);

/* How far a checkpoint is behind its event table. */
Datum
event_store_projection_lag(PG_FUNCTION_ARGS)
{
	Oid			relid = es_arg_table(fcinfo);
	bool		missing = false;
	bool		busy;
	EventTable *table = NULL;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {true, true, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (pg_class_aclcheck_ext(relid, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK && !missing)
		table = es_event_table_try_open(relid, &busy);
	if (table)
	{
		if (!PG_ARGISNULL(1) && check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED &&
			es_high_water_mark_known(table))
		{
			int64		mark;
			Snapshot	snapshot = es_feed_snapshot(table, &mark, NULL);
			Checkpoint	newest = es_newest_event(table, snapshot, mark);
			int64		position = Min(Max(PG_GETARG_INT64(1), 0), newest.position);
			Checkpoint	next = es_next_event(table, snapshot, position);

			UnregisterSnapshot(snapshot);
			values[0] = Int64GetDatum(newest.position);
			values[1] = Int64GetDatum(newest.position - position);
			values[2] = Float8GetDatum(position == newest.position ? 0 :
									   Max(GetCurrentTimestamp() - next.recorded_at, 0) / (double) USECS_PER_SEC);
			memset(nulls, false, sizeof(nulls));
		}
		table_close(table->rel, AccessShareLock);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* A process that runs the projections of that role in this database. */
Datum
event_store_projector_pid(PG_FUNCTION_ARGS)
{
	pid_t		pid = PG_ARGISNULL(0) ? 0 : es_projector_pid(PG_GETARG_OID(0));

	if (pid == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(pid);
}
