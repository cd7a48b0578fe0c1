/*
 * launcher.c
 *	  The launcher: starts a worker for each database that needs one.
 *
 * One background worker, registered at server start, which runs from the end
 * of recovery on: so there is none on a standby, and one after promotion.  It has
 * no connection to any database and sleeps until somebody sets its latch:
 *
 *	  a backend that has appended, where there is no worker	(wanted)
 *	  a worker that ends, in whatever way					(wanted, or not)
 *
 * At its start it wants a worker for every database; a worker that finds
 * nothing to look after leaves at once.  Where workers fail, or cannot be had,
 * it tries again after 1 s, 2 s and so on up to a minute; meanwhile the database
 * is "unserved", and its backends do without a worker.
 *
 * A worker takes possession of its database by itself (es_claim_database), so
 * that there are never two, also after a launcher has failed and come back.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "launcher.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "projector_state.h"
#include "session.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* By slot; NULL: not started by this process, or known to have ended. */
static BackgroundWorkerHandle **handles;

/*
 * How many workers there were when no further one could be had, for how long
 * we go by that, and how often it has happened.
 */
static int	room = PG_INT32_MAX;
static MonotonicTime room_until = 0;
static int	refusals = 0;

PGDLLEXPORT void event_store_launcher_main(Datum arg);

static void at_launcher_exit(int code, Datum arg);
static void want_all_databases(void);
static void check_started(void);
static MonotonicTime start_wanted(void);
static DatabaseSlot *choose(MonotonicTime *next);
static void make_room(void);
static bool start_worker(DatabaseSlot *db);
static void note_refusal(DatabaseSlot *db);
static bool is_taken(int slot);
static bool database_exists(Oid database);
static void note_failure(DatabaseSlot *db);
static void at_worker_exit(int code, Datum arg);

void
es_launcher_init(void)
{
	BackgroundWorker worker = {
		.bgw_name = "event_store launcher",
		.bgw_type = "event_store launcher",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = 1,
		.bgw_library_name = "event_store",
		.bgw_function_name = "event_store_launcher_main"
	};

	RegisterBackgroundWorker(&worker);
}

void
event_store_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	handles = MemoryContextAllocZero(TopMemoryContext,
									 es_num_databases() * sizeof(BackgroundWorkerHandle *));

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	es_shared->launcher_pid = MyProcPid;
	es_shared->launcher_latch = MyLatch;
	/* What a predecessor had asked for is lost to us, but not to itself. */
	for (int i = 0; i < es_num_databases(); i++)
		es_shared->databases[i].starting = false;
	LWLockRelease(es_shared->lock);
	on_shmem_exit(at_launcher_exit, (Datum) 0);

	want_all_databases();
	pgstat_report_activity(STATE_IDLE, "waiting for databases that need a worker");
	for (;;)
	{
		MonotonicTime next;
		long		timeout = -1;

		check_started();
		next = start_wanted();
		if (next != ES_NEVER)
			timeout = Max((next - es_now()) / 1000 + 1, 0);
		es_sleep(timeout);
		if (ConfigReloadPending)
		{
			int			notify = es_notify;
			int			standby_interval = es_standby_interval;

			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			/* There may be more to do than before. */
			if (es_notify != notify || es_standby_interval != standby_interval)
				want_all_databases();
		}
	}
}

/*
 * Sleeps until somebody sets the latch, or for so many milliseconds; -1: for as
 * long as it takes.  What a background worker must not miss is attended to.
 */
void
es_sleep(long timeout)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
					 timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	if (ProcDiePending)
		proc_exit(1);			/* to be started again, unless the server ends */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

static void
at_launcher_exit(int code, Datum arg)
{
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	es_shared->launcher_pid = 0;
	es_shared->launcher_latch = NULL;
	LWLockRelease(es_shared->lock);
	for (int i = 0; i < es_num_databases(); i++)
		if (OidIsValid(es_shared->databases[i].database))
			es_wake_waiters(es_shared->databases[i].database);
}

/* At the start: who has appended before the server stopped is not here to tell. */
static void
want_all_databases(void)
{
	Relation	catalog;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	catalog = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(catalog, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		DatabaseSlot *db;

		if (!form->datallowconn || database_is_invalid_form(form))
			continue;
		db = es_database_slot(form->oid, false);
		if (db)
			pg_atomic_write_u32(&db->wanted, 1);
		else
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("event_store does not look for event tables in database \"%s\" before it is used: there are more than %d databases",
							NameStr(form->datname), es_num_databases()),
					 errhint("Raise event_store.max_event_tables.")));
	}
	table_endscan(scan);
	table_close(catalog, AccessShareLock);
	CommitTransactionCommand();
}

/* Did all workers that we started come to life? */
static void
check_started(void)
{
	for (int i = 0; i < es_num_databases(); i++)
	{
		DatabaseSlot *db = &es_shared->databases[i];
		pid_t		pid;

		if (handles[i] == NULL ||
			GetBackgroundWorkerPid(handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(handles[i]);
		handles[i] = NULL;
		LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
		if (db->starting)
			note_failure(db);
		LWLockRelease(es_shared->lock);
	}
}

/* Starts what can be started; returns when to try again. */
static MonotonicTime
start_wanted(void)
{
	MonotonicTime next;
	DatabaseSlot *db;

	while ((db = choose(&next)) != NULL)
	{
		Oid			database = db->database;

		if (db->failures > 0 && !database_exists(database))
			es_forget_database(db, database);
		else if (!start_worker(db))
			note_refusal(db);
	}
	return next;
}

/*
 * The database that has waited longest for a worker, marked as starting, if
 * one more worker is allowed; and if there is none, when there may be.
 */
static DatabaseSlot *
choose(MonotonicTime *next)
{
	DatabaseSlot *chosen = NULL;
	MonotonicTime now = es_now();
	int			workers = 0;
	int			allowed;

	*next = ES_NEVER;
	if (room_until <= now)
		room = PG_INT32_MAX;
	allowed = Min(es_max_workers, room);
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < es_num_databases(); i++)
	{
		DatabaseSlot *db = &es_shared->databases[i];

		if (!OidIsValid(db->database) && handles[i] == NULL)
			continue;
		if (is_taken(i))
			workers++;
		else if (db->keep_out > 0 || pg_atomic_read_u32(&db->wanted) == 0)
			continue;
		else if (db->retry_at > now)
			*next = Min(*next, db->retry_at);
		else if (chosen == NULL || db->started_at < chosen->started_at)
			chosen = db;
	}
	if (es_shared->capped_until > now)
		allowed = Min(allowed, es_shared->worker_cap);
	es_shared->crowded = chosen && workers >= allowed;
	if (chosen == NULL)
		refusals = 0;
	es_shared->scarce = refusals > 0;
	if (es_shared->crowded)
	{
		make_room();
		if (room < PG_INT32_MAX)
			*next = Min(*next, room_until);
		if (es_shared->capped_until > now)
			*next = Min(*next, es_shared->capped_until);
		chosen = NULL;
	}
	if (chosen)
	{
		chosen->starting = true;
		chosen->started_at = now;
		pg_atomic_exchange_u32(&chosen->wanted, 0);
	}
	LWLockRelease(es_shared->lock);
	return chosen;
}

/*
 * Too many want a worker.  Whichever has nothing to do shall leave; whoever waits
 * does without so long.  With the lock held.
 */
static void
make_room(void)
{
	for (int i = 0; i < es_num_databases(); i++)
	{
		DatabaseSlot *db = &es_shared->databases[i];

		if (db->worker_latch)
			SetLatch(db->worker_latch);
		else if (OidIsValid(db->database) && db->worker_pid == 0 && !db->unserved &&
				 pg_atomic_read_u32(&db->wanted))
		{
			db->unserved = true;
			es_wake_waiters(db->database);
		}
	}
}

/*
 * A projector wants a process, and there is none: there shall be one worker less for a
 * while.  With the lock held.
 */
void
es_make_room_for_projector(void)
{
	int			workers = 0;

	for (int i = 0; i < es_num_databases(); i++)
	{
		DatabaseSlot *db = &es_shared->databases[i];

		workers += db->worker_pid != 0;
		if (db->worker_latch)
			SetLatch(db->worker_latch);
	}
	es_shared->worker_cap = Max(workers - 1, 1);
	es_shared->capped_until = es_now() + ES_LAST_RETRY;
	es_shared->crowded = workers > 1;	/* until the launcher looks, when one has left */
}

static bool
start_worker(DatabaseSlot *db)
{
	int			slot = db - es_shared->databases;
	BackgroundWorker worker = {
		.bgw_type = "event_store worker",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "event_store",
		.bgw_function_name = "event_store_worker_main",
		.bgw_main_arg = Int32GetDatum(slot),
		.bgw_notify_pid = MyProcPid
	};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	snprintf(worker.bgw_name, BGW_MAXLEN, "event_store worker for database %u", db->database);
	if (handles[slot])
		pfree(handles[slot]);
	handles[slot] = NULL;
	started = RegisterDynamicBackgroundWorker(&worker, &handles[slot]);
	MemoryContextSwitchTo(old);
	return started;
}

/* There are no more background workers to be had on this server. */
static void
note_refusal(DatabaseSlot *db)
{
	if (refusals == 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("event_store has no background worker for the database with OID %u: there are too few", db->database),
				 errdetail("Appends go on. Where there is no worker, those who append notify the listeners by themselves, and feeds on standbys stand still."),
				 errhint("Raise max_worker_processes, which is %d.", max_worker_processes)));
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	db->starting = false;
	pg_atomic_exchange_u32(&db->wanted, 1);
	es_shared->scarce = true;
	room = 0;
	for (int i = 0; i < es_num_databases(); i++)
		room += is_taken(i);
	LWLockRelease(es_shared->lock);
	room_until = es_now() + Min(ES_FIRST_RETRY << Min(refusals, 6), ES_LAST_RETRY);
	refusals++;
}

/*
 * Is a background worker of the server in use for this slot?  Also while it
 * leaves: until the postmaster knows.
 */
static bool
is_taken(int slot)
{
	DatabaseSlot *db = &es_shared->databases[slot];

	return db->worker_pid != 0 || db->starting || handles[slot] != NULL;
}

static bool
database_exists(Oid database)
{
	HeapTuple	tuple;
	bool		exists;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	exists = HeapTupleIsValid(tuple) &&
		!database_is_invalid_form((Form_pg_database) GETSTRUCT(tuple));
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	CommitTransactionCommand();
	return exists;
}

/* With the lock held. */
static void
note_failure(DatabaseSlot *db)
{
	db->starting = false;
	db->unserved = true;
	db->retry_at = es_now() + Min(ES_FIRST_RETRY << Min(db->failures, 6), ES_LAST_RETRY);
	db->failures++;
	pg_atomic_exchange_u32(&db->wanted, 1);
}

/*
 * A worker takes possession of its database; false if it must not.  From then
 * on its exit is noticed, however it comes about.  Not yet connected: so that
 * what happens at exit happens when the connection is gone.
 */
bool
es_claim_database(DatabaseSlot *db)
{
	bool		claimed = false;
	bool		asked_for;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	asked_for = db->starting;
	db->starting = false;
	if (!OidIsValid(db->database) || db->worker_pid != 0)
		 /* dropped meanwhile, or served already */ ;
	else if (db->keep_out > 0)
	{
		if (asked_for)
			pg_atomic_exchange_u32(&db->wanted, 1);
	}
	else
	{
		db->worker_pid = MyProcPid;
		claimed = true;
	}
	LWLockRelease(es_shared->lock);
	if (claimed)
		on_shmem_exit(at_worker_exit, PointerGetDatum(db));
	return claimed;
}

static void
at_worker_exit(int code, Datum arg)
{
	DatabaseSlot *db = (DatabaseSlot *) DatumGetPointer(arg);

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	db->worker_pid = 0;
	db->worker_latch = NULL;
	es_forget_projectors(db->database);
	es_want_projector(db, false);
	if (code != 0)
		note_failure(db);
	else
		es_free_database(db);
	if (es_shared->launcher_latch)
		SetLatch(es_shared->launcher_latch);
	LWLockRelease(es_shared->lock);
	if (code != 0)
		es_wake_waiters(db->database);
	ConditionVariableBroadcast(&es_shared->left);
}

/* The worker has got through a round: it can be woken, and relied on. */
void
es_database_is_fine(DatabaseSlot *db)
{
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	db->worker_latch = MyLatch;
	pg_atomic_exchange_u32(&db->wanted, 0);
	db->unserved = false;
	db->failures = 0;
	db->retry_at = 0;
	LWLockRelease(es_shared->lock);
}

/*
 * The worker is about to leave: from here on nobody wakes it.  With work left
 * another one shall come.  Without, it may not if somebody has just woken it:
 * returns false then, and all is as before.
 */
bool
es_may_leave(DatabaseSlot *db, bool work_left)
{
	bool		may = true;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	db->worker_latch = NULL;
	pg_memory_barrier();
	pg_atomic_exchange_u32(&db->wanted, work_left);
	if (!work_left)
	{
		may = pg_atomic_read_u32(&db->rescan) == 0 &&
			pg_atomic_read_u32(&db->projections_changed) == db->projections_seen &&
			!es_have_projectors_to_attend(db->database);
		for (int i = 0; may && i < es_shared->num_feeds; i++)
			may = es_shared->feeds[i].database != db->database ||
				pg_atomic_read_u32(&es_shared->feeds[i].dirty) == 0;
		if (!may)
		{
			db->worker_latch = MyLatch;
			SetLatch(MyLatch);	/* in place of who found none */
		}
	}
	LWLockRelease(es_shared->lock);
	return may;
}
