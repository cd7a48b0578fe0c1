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
 *	  publishes it in shared memory, for wait_for_events();
 *	  sends a notification, at most one per event_store.notify_interval;
 *	  records it for standbys, at most once per event_store.standby_interval.
 *
 * The flag is lowered before it looks, so that whatever ends while it looks
 * raises it again.  While something is in flight it also looks by itself, less
 * and less often: so nothing depends on a wake-up.  Between looks it has no transaction, no
 * snapshot and no lock.
 *
 * An error in the midst of one table's look is logged, that table tried again
 * later, and the others go on.  After any other error the worker ends, and
 * the launcher starts another one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
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
#include "settings.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/proclist.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Microseconds. */
#define LOOK_FOR_WAITERS	INT64CONST(1000)	/* between two looks, while somebody waits */
#define FIRST_BACK_OFF		INT64CONST(5000)	/* while something is in flight */
#define LAST_BACK_OFF		INT64CONST(1000000)
#define FIRST_RETRY			INT64CONST(1000000) /* after an error */
#define LAST_RETRY			INT64CONST(60000000)
#define TURN				INT64CONST(1000000) /* when workers are scarce */

PGDLLEXPORT void event_store_worker_main(Datum arg);

static DatabaseSlot *database;
static MonotonicTime busy_at;	/* when there was something to do last */
static int	watched;			/* event tables in this database */

static void prepare(void);
static void find_event_tables(void);
static MonotonicTime look_around(void);
static MonotonicTime when_due(FeedSlot *feed);
static void try_look(FeedSlot *feed);
static void look(FeedSlot *feed);
static void tell(FeedSlot *feed, EventTable *table);
static void recover(FeedSlot *feed);
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
		if (pg_atomic_exchange_u32(&database->rescan, 0))
			find_event_tables();
		next = look_around();
		if (must_leave(next))
			proc_exit(0);
		if (next == ES_NEVER && es_worker_idle_timeout >= 0)
			next = busy_at + es_worker_idle_timeout * INT64CONST(1000000);
		else if (es_shared->crowded)
			next = Min(next, Max(database->started_at + TURN, es_now()));
		if (next != ES_NEVER)
			timeout = Max((next - es_now() + 999) / 1000, 0);

		pgstat_report_stat(next == ES_NEVER);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (ProcDiePending)
			proc_exit(1);		/* to be started again, unless the server ends */
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

/* What the database's settings must not change for us. */
static void
prepare(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"lock_timeout", "1s"},

		/*
		 * Nothing it writes needs to be there after a crash, and it must not
		 * wait for standbys.
		 */
		{"synchronous_commit", "off"}
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
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
	if (SPI_execute("SELECT t.tgrelid FROM pg_catalog.pg_trigger t"
					" JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid"
					" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace"
					" WHERE n.nspname OPERATOR(pg_catalog.=) 'event_store'"
					" AND p.proname OPERATOR(pg_catalog.=) '_guard_insert'", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the event tables");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		FeedSlot   *feed = es_feed_slot(DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
																	   SPI_tuptable->tupdesc, 1, &isnull)));

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
}

/* Looks at every feed that is due; returns when the next one is. */
static MonotonicTime
look_around(void)
{
	MonotonicTime next = ES_NEVER;

	watched = 0;
	for (int i = 0; i < es_shared->num_feeds; i++)
	{
		FeedSlot   *feed = &es_shared->feeds[i];

		if (feed->database == MyDatabaseId && when_due(feed) <= es_now())
		{
			try_look(feed);
			busy_at = es_now();
		}
		if (feed->database == MyDatabaseId)
		{
			watched++;
			next = Min(next, when_due(feed));
		}
	}
	if (next != ES_NEVER)
		busy_at = es_now();
	return next;
}

static bool
somebody_waits(FeedSlot *feed)
{
	/* A hint: who comes later looks by himself first. */
	return !proclist_is_empty(&feed->risen.wakeup);
}

static bool
recording(void)
{
	return es_standby_interval >= 0 && XLogStandbyInfoActive();
}

static MonotonicTime
when_due(FeedSlot *feed)
{
	MonotonicTime due = feed->look_again;
	int64		published = pg_atomic_read_u64(&feed->published);
	int64		interval = es_notify_interval * INT64CONST(1000);

	if (feed->failures > 0)
		return due;
	if (pg_atomic_read_u32(&feed->dirty))
		due = Min(due, feed->looked_at +
				  (somebody_waits(feed) ? Min(LOOK_FOR_WAITERS, interval) : interval));
	if (published > feed->notified && es_notify == ES_NOTIFY_AUTO)
		due = Min(due, feed->notified_at + interval);
	if (published > feed->recorded && recording())
		due = Min(due, feed->recorded_at + es_standby_interval * INT64CONST(1000));
	return due;
}

/* Looks.  An error is the table's own affair: the others go on. */
static void
try_look(FeedSlot *feed)
{
	PG_TRY();
	{
		look(feed);
		feed->failures = 0;
	}
	PG_CATCH();
	{
		recover(feed);
	}
	PG_END_TRY();
}

static void
recover(FeedSlot *feed)
{
	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	feed->looked_at = es_now();
	feed->look_again = feed->looked_at + Min(FIRST_RETRY << Min(feed->failures, 6), LAST_RETRY);
	feed->failures++;
	pgstat_report_activity(STATE_IDLE, "waiting for appends");
	RESUME_INTERRUPTS();
}

static void
look(FeedSlot *feed)
{
	EventTable *table;
	int64		mark;
	int64		last_value;
	bool		busy;
	Snapshot	snapshot;
	Checkpoint	newest;

	pg_atomic_exchange_u32(&feed->dirty, 0);
	pgstat_report_activity(STATE_RUNNING, "looking at an event table");
	StartTransactionCommand();
	table = es_event_table_try_open(feed->table, &busy);
	if (table)
	{
		mark = es_high_water_mark(table, &last_value);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		newest = es_newest_event(table, snapshot, mark);
		UnregisterSnapshot(snapshot);
		busy = mark < last_value;
		if (newest.position > (int64) pg_atomic_read_u64(&feed->published))
		{
			pg_atomic_write_u64(&feed->published, newest.position);
			ConditionVariableBroadcast(&feed->risen);
		}
		tell(feed, table);
	}
	else
	{
		CommitTransactionCommand();
		if (!busy)
			es_free_feed(feed);
	}
	pgstat_report_activity(STATE_IDLE, "waiting for appends");

	feed->looked_at = es_now();
	feed->back_off = busy ? Min(Max(feed->back_off * 2, FIRST_BACK_OFF), LAST_BACK_OFF) : 0;
	feed->look_again = busy ? feed->looked_at + feed->back_off : ES_NEVER;
}

/* Tells listeners and standbys what is new to them, and commits. */
static void
tell(FeedSlot *feed, EventTable *table)
{
	int64		published = pg_atomic_read_u64(&feed->published);
	MonotonicTime now = es_now();
	bool		notify;
	bool		record;

	notify = es_notify == ES_NOTIFY_AUTO && published > feed->notified &&
		feed->notified_at + es_notify_interval * INT64CONST(1000) <= now;
	record = recording() && published > feed->recorded &&
		feed->recorded_at + es_standby_interval * INT64CONST(1000) <= now;

	if (notify)
		es_send_notification(feed->table, published);
	if (record)
	{
		feed->recorded_at = now;
		record = es_record_mark(feed->table, published);
	}
	if (record)
		ForceSyncCommit();		/* or the standby has it when the WAL writer wakes up */
	es_event_table_close(table);
	CommitTransactionCommand();

	if (notify)
	{
		feed->notified = published;
		feed->notified_at = now;
		pg_atomic_write_u64(&feed->notified_time, GetCurrentTimestamp());
		pg_atomic_fetch_add_u64(&feed->notifications, 1);
	}
	if (record)
		feed->recorded = published;
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
	if (es_shared->crowded && next != ES_NEVER)
		return database->started_at + TURN <= now && es_may_leave(database, true);
	if (next != ES_NEVER)
		return false;
	if (watched == 0 || es_shared->crowded ||
		(es_worker_idle_timeout >= 0 &&
		 busy_at + es_worker_idle_timeout * INT64CONST(1000000) <= now))
		return es_may_leave(database, false);
	return false;
}
