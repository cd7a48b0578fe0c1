/*
 * wait.c
 *	  wait_for_events(): the long poll.
 *
 * A waiter looks by himself first, and then sleeps until the worker publishes a
 * newer checkpoint.  He is on the worker's list before he looks what is published:
 * whoever has ended since he looked by himself has raised the flag, so nothing is
 * missed in between.  Where there is no worker, and on a standby, he looks
 * again every POLL milliseconds.  While he sleeps he has no lock on the table.
 */
#include "postgres.h"

#include "access/table.h"
#include "arguments.h"
#include "feed.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "shared_state.h"
#include "test_hooks.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_wait_for_events);

#define POLL			50		/* ms */

static int64 newest_checkpoint(Oid relid, int64 *published, bool *hidden);
static void sleep_a_little(MonotonicTime deadline);
static void sleep_until_risen(FeedSlot *feed, Oid relid, int64 after, MonotonicTime deadline);

Datum
event_store_wait_for_events(PG_FUNCTION_ARGS)
{
	Oid			relid = es_arg_table(fcinfo);
	int64		after = es_arg_int64(fcinfo, 1, 0);
	MonotonicTime deadline = es_now() + es_arg_timeout(fcinfo, 2);
	bool		hidden;
	int64		published;
	int64		newest = newest_checkpoint(relid, &published, &hidden);

	PreventCommandIfParallelMode("wait_for_events");
	/* Perhaps there can be a worker again. */
	if (newest <= after && es_feed_slot(relid) && !es_worker_serves())
		es_wake_worker();
	while (newest <= after && es_now() < deadline)
	{
		FeedSlot   *feed = es_feed_slot(relid);

		if (es_in_flight(relid))
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("cannot wait for events behind those of this transaction"),
					 errdetail("It has appended to the event table, so the feed stops before its events until it ends."),
					 errhint("Commit first.")));
		if (feed == NULL || !es_worker_serves())
			sleep_a_little(deadline);
		else
			sleep_until_risen(feed, relid, hidden ? published : after, deadline);
		newest = newest_checkpoint(relid, &published, &hidden);
	}
	PG_RETURN_INT64(newest);
}

/*
 * Of what the caller may see.  *hidden: policies may hide some of it.  *published
 * is what the worker had published before.  It may be above what we see, if a
 * writer holds back the mark now that came later, and has been readable.
 */
static int64
newest_checkpoint(Oid relid, int64 *published, bool *hidden)
{
	EventTable *table = es_event_table_open(relid, AccessShareLock, ES_FOR_READING);
	FeedSlot   *feed = es_find_feed(relid);
	int64		position;

	*published = feed ? (int64) pg_atomic_read_u64(&feed->published) : 0;
	if (feed && (feed->table != relid || feed->database != MyDatabaseId))
		*published = 0;
	position = es_newest_checkpoint(table).position;
	*hidden = es_row_security_applies(table);
	table_close(table->rel, AccessShareLock);
	pfree(table);
	return *hidden ? position : Max(position, *published);
}

static void
sleep_a_little(MonotonicTime deadline)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(Max(deadline - es_now(), 0) / 1000 + 1, POLL), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Until the worker has published a checkpoint above that position, or something
 * has happened to it, or to the table.  A worker that sleeps with the flag up
 * does not know that somebody is in a hurry now.
 */
static void
sleep_until_risen(FeedSlot *feed, Oid relid, int64 after, MonotonicTime deadline)
{
	MonotonicTime left = deadline - es_now();

	ES_POINT("waiter_before_list");
	ConditionVariablePrepareToSleep(&feed->risen);
	ES_POINT("waiter_on_list");
	if (pg_atomic_read_u32(&feed->dirty))
		es_wake_worker();
	while (left > 0 && es_worker_serves() &&
		   feed->table == relid && feed->database == MyDatabaseId &&
		   (int64) pg_atomic_read_u64(&feed->published) <= after &&
		   !ConditionVariableTimedSleep(&feed->risen, left / 1000 + 1, PG_WAIT_EXTENSION))
		left = deadline - es_now();
	ConditionVariableCancelSleep();
}
