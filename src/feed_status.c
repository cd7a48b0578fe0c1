/*
 * feed_status.c
 *	  feed_status(): a row of the view event_store.feeds.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "arguments.h"
#include "feed.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "shared_state.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(event_store_feed_status);

static void how_far(Oid relid, Datum *values, bool *nulls);
static void how_often(Oid relid, Datum *values, bool *nulls);

/*
 * For the view of all feeds: nothing is raised, and nobody waited for; what
 * the caller may not know, or cannot be told, is null.
 */
Datum
event_store_feed_status(PG_FUNCTION_ARGS)
{
	Oid			relid = es_arg_table(fcinfo);
	pid_t		worker = es_worker_pid();
	bool		missing = false;
	TupleDesc	desc;
	Datum		values[8];
	bool		nulls[8] = {true, true, true, true, true, true, true, true};

	PreventCommandIfParallelMode("feed_status");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (pg_class_aclcheck_ext(relid, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK && !missing)
	{
		how_far(relid, values, nulls);
		how_often(relid, values + 5, nulls + 5);
	}
	nulls[7] = worker == 0;
	values[7] = Int32GetDatum(worker);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* The first five columns. */
static void
how_far(Oid relid, Datum *values, bool *nulls)
{
	bool		busy;
	EventTable *table = es_event_table_try_open(relid, &busy);

	if (table == NULL)
		return;
	if (check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED && es_high_water_mark_known(table))
	{
		int64		mark;
		Snapshot	snapshot = es_feed_snapshot(table, &mark, NULL);
		int64		checkpoint = es_last_position(table, snapshot, 0, mark);
		int64		last = es_last_position(table, snapshot, 0, PG_INT64_MAX);
		Checkpoint	next = es_next_event(table, snapshot, checkpoint);

		UnregisterSnapshot(snapshot);
		values[0] = Int64GetDatum(mark);
		values[1] = Int64GetDatum(checkpoint);
		values[2] = Int64GetDatum(last);
		values[3] = Int64GetDatum(last - checkpoint);
		values[4] = Float8GetDatum(next.position == 0 ? 0 :
								   Max(GetCurrentTimestamp() - next.recorded_at, 0) / (double) USECS_PER_SEC);
		memset(nulls, false, 5);
	}
	table_close(table->rel, AccessShareLock);
}

/* The next two. */
static void
how_often(Oid relid, Datum *values, bool *nulls)
{
	FeedSlot   *feed = es_find_feed(relid);
	uint64		notifications;

	if (feed == NULL)
		return;
	notifications = pg_atomic_read_u64(&feed->notifications);
	values[0] = Int64GetDatum(notifications);
	values[1] = TimestampTzGetDatum(pg_atomic_read_u64(&feed->notified_time));
	nulls[0] = false;
	nulls[1] = notifications == 0;
}
