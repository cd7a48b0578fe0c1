/*
 * worker.c
 *	  The worker of a database: looks how far each event table can be read, and
 *	  tells those who wait.
 *
 * One background worker per database, started by the launcher.  It sleeps
 * until a transaction that has appended has ended and raised its feed's flag.
 * Then, in a transaction of its own, it finds the newest checkpoint and, where
 * that has risen,
 *
 *	  publishes it in shared memory, for wait_for_events(),
 *
 * and in further transactions
 *
 *	  sends a notification, at most one per event_store.notify_interval;
 *	  records it for standbys, at most once per event_store.standby_interval.
 *
 * The flag is lowered before it looks, so that whatever ends while it looks
 * raises it again.  While something is in flight it also looks by itself, less
 * and less often: so nothing depends on a wake-up.  Between looks it has no transaction, no
 * snapshot and no lock.
 *
 * It also starts the processes that run projections, and wakes them; see
 * projectors.c.
 *
 * An error in the midst of one table's look is logged, that table tried again
 * later, and the others go on.  After any other error the worker ends, and
 * the launcher starts another one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "event_table.h"
#include "executor/spi.h"
#include "feed.h"
#include "feed_marks.h"
#include "launcher.h"
#include "miscadmin.h"
#include "notify.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "projector_state.h"
#include "projectors.h"
#include "session.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/proclist.h"
#include "tcop/tcopprot.h"
#include "test_hooks.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Milliseconds between two looks, while somebody waits, and for projections. */
#define LOOK_FOR_WAITERS	1
#define LOOK_FOR_PROJECTIONS	5

/* Microseconds. */
#define FIRST_BACK_OFF		INT64CONST(5000)	/* while something is in flight */
#define LAST_BACK_OFF		INT64CONST(1000000)
#define TURN				INT64CONST(1000000) /* when workers are scarce */
#define RESCAN_INTERVAL		INT64CONST(1000000)

PGDLLEXPORT void event_store_worker_main(Datum arg);

static DatabaseSlot *database;
static MonotonicTime busy_at;	/* when there was something to do last */
static int	watched;			/* event tables in this database */
static MonotonicTime rescan_after;	/* not before this */

/* What stops notifications stops those of all tables. */
static MonotonicTime notify_after;
static int	notify_failures;

static void prepare(void);
static void find_event_tables(void);
static MonotonicTime look_around(void);
static MonotonicTime when_due(FeedSlot *feed);
static void visit(FeedSlot *feed);
static void describe_visit(void *arg);
static bool look(FeedSlot *feed);
static void notify(FeedSlot *feed);
static void record(FeedSlot *feed);
static bool must_leave(MonotonicTime next);

void
event_store_worker_main(Datum arg)
{
	database = &es_shared->databases[DatumGetInt32(arg)];
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	if (!es_claim_database(database))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database->database, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	prepare();
	find_event_tables();
	es_database_is_fine(database);

	busy_at = es_now();
	for (;;)
	{
		MonotonicTime next;
		long		timeout = -1;

		database->notifies = es_notify == ES_NOTIFY_AUTO;
		if (rescan_after <= es_now() && pg_atomic_exchange_u32(&database->rescan, 0))
			find_event_tables();
		next = look_around();
		next = Min(next, es_attend_projectors(database));
		if (pg_atomic_read_u32(&database->rescan))
			next = Min(next, rescan_after);
		if (must_leave(next))
			proc_exit(0);
		if (next == ES_NEVER && es_worker_idle_timeout >= 0)
			next = busy_at + es_worker_idle_timeout * INT64CONST(1000000);
		else if (es_shared->crowded)
			next = Min(next, Max(database->started_at + TURN, es_now()));
		if (next != ES_NEVER)
			timeout = Max((next - es_now() + 999) / 1000, 0);

		pgstat_report_stat(next == ES_NEVER);
		es_sleep(timeout);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

/* Undoes what the database's settings have changed for us. */
static void
prepare(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"statement_timeout", "0"},
		{"lock_timeout", "1s"}
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	es_prepare_session(BOOTSTRAP_SUPERUSERID);
}

/*
 * Raises the flags of all event tables.  Those that have a slot and are gone
 * are found out by looking.
 */
static void
find_event_tables(void)
{
	for (int i = 0; i < es_shared->num_feeds; i++)
		if (es_shared->feeds[i].database == MyDatabaseId)
			pg_atomic_write_u32(&es_shared->feeds[i].dirty, 1);

	pgstat_report_activity(STATE_RUNNING, "looking for event tables");
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (SPI_execute("SELECT t.tgrelid, t.tgfoid FROM pg_catalog.pg_trigger t"
					" JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid"
					" WHERE p.proname OPERATOR(pg_catalog.=) '_guard_insert'", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the event tables");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		FeedSlot   *feed;

		/* Others may have triggers of that name. */
		if (!es_is_our_function(DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull)),
								es_guards[ES_INSERT_GUARD].symbol))
			continue;
		feed = es_feed_slot(DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull)));
		if (feed == NULL)
		{
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("event_store cannot look after all event tables of this server: there are more than %d",
							es_max_event_tables),
					 errhint("Raise event_store.max_event_tables.")));
			break;
		}
		pg_atomic_write_u32(&feed->dirty, 1);
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, "waiting for appends");
	es_reload_projections();
	rescan_after = es_now() + RESCAN_INTERVAL;
}

/*
 * Looks at every feed that is due; returns when the next one is.  That is asked
 * of all when the last visit is over: what waits in a visit for a lock resets the
 * latch, and so loses what it was set for, an append to a table visited before.
 */
static MonotonicTime
look_around(void)
{
	MonotonicTime next = ES_NEVER;

	for (int i = 0; i < es_shared->num_feeds; i++)
	{
		FeedSlot   *feed = &es_shared->feeds[i];

		if (feed->database == MyDatabaseId && when_due(feed) <= es_now())
		{
			visit(feed);
			busy_at = es_now();
		}
	}

	watched = 0;
	for (int i = 0; i < es_shared->num_feeds; i++)
	{
		FeedSlot   *feed = &es_shared->feeds[i];

		if (feed->database != MyDatabaseId)
			continue;
		watched++;
		next = Min(next, when_due(feed));
	}
	if (next != ES_NEVER)
		busy_at = es_now();
	return next;
}

static bool
somebody_waits(FeedSlot *feed)
{
	/* A hint: who comes later, when the flag is up, wakes us. */
	return !proclist_is_empty(&feed->risen.wakeup);
}

static bool
recording(void)
{
	return es_standby_interval >= 0 && XLogStandbyInfoActive();
}

static MonotonicTime
may_notify_at(FeedSlot *feed)
{
	return Max(feed->notified_at + es_notify_interval * INT64CONST(1000), notify_after);
}

static MonotonicTime
may_record_at(FeedSlot *feed)
{
	return Max(feed->recorded_at + es_standby_interval * INT64CONST(1000), feed->record_after);
}

static MonotonicTime
when_due(FeedSlot *feed)
{
	MonotonicTime due = feed->look_again;
	int64		published = pg_atomic_read_u64(&feed->published);
	int64		interval = es_notify_interval;

	if (recording())
		interval = Min(interval, es_standby_interval);
	if (feed->projected)
		interval = Min(interval, LOOK_FOR_PROJECTIONS);
	if (somebody_waits(feed))
		interval = LOOK_FOR_WAITERS;
	interval = Max(interval, LOOK_FOR_WAITERS);
	if (feed->failures == 0 && pg_atomic_read_u32(&feed->dirty))
		due = Min(due, feed->looked_at + interval * INT64CONST(1000));
	if (published > feed->notified && es_notify == ES_NOTIFY_AUTO)
		due = Min(due, may_notify_at(feed));
	if (published > feed->recorded && recording())
		due = Min(due, may_record_at(feed));
	return due;
}

/*
 * Looks and tells.  An error is that table's own affair: the others go on.  And
 * listeners may have bad luck, where the queue of notifications is full, without
 * harm to those who wait and to standbys.
 */
static void
visit(FeedSlot *feed)
{
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = describe_visit,
		.arg = feed
	};
	volatile bool gone = false;

	error_context_stack = &context;
	PG_TRY();
	{
		gone = !look(feed);
	}
	PG_CATCH();
	{
		feed->look_again = es_recover(&feed->failures);
	}
	PG_END_TRY();

	PG_TRY();
	{
		if (!gone)
			notify(feed);
	}
	PG_CATCH();
	{
		notify_after = es_recover(&notify_failures);
	}
	PG_END_TRY();

	PG_TRY();
	{
		if (!gone)
			record(feed);
	}
	PG_CATCH();
	{
		feed->record_after = es_recover(&feed->record_failures);
	}
	PG_END_TRY();
	error_context_stack = context.previous;

	feed->looked_at = es_now();
	if (gone)
		es_free_feed(feed);		/* nothing of it is ours from here on */
	pgstat_report_activity(STATE_IDLE, "waiting for appends");
}

static void
describe_visit(void *arg)
{
	errcontext("looking at the event table with OID %u", ((FeedSlot *) arg)->table);
}

/*
 * Finds out how far the feed can be read, and publishes it.  False: there is no
 * such table any more.
 */
static bool
look(FeedSlot *feed)
{
	EventTable *table;
	bool		busy;

	if (feed->failures > 0 && feed->look_again > es_now())
		return true;
	pg_atomic_exchange_u32(&feed->dirty, 0);
	ES_POINT("worker_after_flag");
	pgstat_report_activity(STATE_RUNNING, "looking at an event table");
	StartTransactionCommand();
	table = es_event_table_try_open(feed->table, &busy);
	if (table)
	{
		int64		last_value;
		int64		mark;
		Snapshot	snapshot = es_feed_snapshot(table, &mark, &last_value);
		int64		published = pg_atomic_read_u64(&feed->published);
		int64		newest = es_last_position(table, snapshot, published + 1, mark);

		UnregisterSnapshot(snapshot);
		es_event_table_close(table);
		busy = mark < last_value;
		if (newest > 0)
		{
			pg_atomic_write_u64(&feed->published, newest);
			ConditionVariableBroadcast(&feed->risen);
			if (feed->projected)
				es_wake_projectors(feed->table);
		}
	}
	CommitTransactionCommand();

	feed->back_off = busy ? Min(Max(feed->back_off * 2, FIRST_BACK_OFF), LAST_BACK_OFF) : 0;
	feed->look_again = busy ? es_now() + feed->back_off : ES_NEVER;
	if (ES_BROKEN(ES_BREAK_WAKE_BEFORE_RELEASE) || ES_ONLY_IF_WOKEN())
		feed->look_again = ES_NEVER;	/* that would make up for it */
	feed->failures = 0;
	ES_POINT("worker_after_look");
	return table != NULL || busy;
}

/* Tells listeners, if it is time to. */
static void
notify(FeedSlot *feed)
{
	int64		published = pg_atomic_read_u64(&feed->published);
	MonotonicTime now = es_now();

	if (es_notify != ES_NOTIFY_AUTO || published <= feed->notified || now < may_notify_at(feed))
		return;
	pgstat_report_activity(STATE_RUNNING, "notifying the listeners of an event table");
	StartTransactionCommand();
	es_send_notification(feed->table, published);
	CommitTransactionCommand();
	notify_failures = 0;
	feed->notified = published;
	feed->notified_at = now;
	pg_atomic_write_u64(&feed->notified_time, GetCurrentTimestamp());
	pg_atomic_fetch_add_u64(&feed->notifications, 1);
}

/* Tells standbys, if it is time to; after the listeners, since it flushes. */
static void
record(FeedSlot *feed)
{
	int64		published = pg_atomic_read_u64(&feed->published);
	MonotonicTime now = es_now();
	EventTable *table;
	bool		busy;
	bool		recorded;

	if (!recording() || published <= feed->recorded || now < may_record_at(feed))
		return;
	pgstat_report_activity(STATE_RUNNING, "recording for standbys how far an event table can be read");
	StartTransactionCommand();
	table = es_event_table_try_open(feed->table, &busy);
	recorded = table && es_record_mark(feed->table, published);
	if (recorded)
		ForceSyncCommit();		/* or it gets there when the WAL writer wakes up */
	if (table)
		es_event_table_close(table);
	CommitTransactionCommand();
	feed->record_failures = 0;
	feed->recorded_at = now;
	if (recorded)
		feed->recorded = published;
	else
		feed->record_after = now + FIRST_BACK_OFF;	/* somebody has it locked */
}

/*
 * Is it time to go?  Somebody wants the database for himself; there is nothing
 * to look after; there has been nothing to do for long; or there are too few
 * workers for all databases: then at once if there is nothing to do, and after
 * a while in any case.
 */
static bool
must_leave(MonotonicTime next)
{
	MonotonicTime now = es_now();

	if (database->keep_out > 0)
		return es_may_leave(database, true);
	if (es_shared->crowded && next != ES_NEVER && !es_waits_longest(database))
		return database->started_at + TURN <= now && es_may_leave(database, true);
	if (next != ES_NEVER)
		return false;
	if (watched == 0 || es_shared->crowded ||
		(es_worker_idle_timeout >= 0 &&
		 busy_at + es_worker_idle_timeout * INT64CONST(1000000) <= now))
		return es_may_leave(database, false);
	return false;
}
