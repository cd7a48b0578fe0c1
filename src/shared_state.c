/*
 * shared_state.c
 *	  Shared memory, and how a backend wakes the worker of its database.
 *
 * There is none unless the library is preloaded; then everything here does
 * nothing.  Slots for databases and event tables are found by a search: there
 * are few, and a backend remembers its last ones.
 *
 * To wake, at the end of every transaction that has appended, takes no lock: an
 * exchange of the feed's flag, and a latch if the flag was not up.  Slots are
 * checked after the flag is up: whoever frees one looks at the flag after that.
 * So either the freer sees the flag, or we see that the slot is another's.  With
 * databases and their flag "wanted" it is the same.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "projector_state.h"
#include "settings.h"
#include "shared_state.h"
#include "storage/ipc.h"
#include "storage/proclist.h"
#include "storage/shmem.h"

SharedState *es_shared = NULL;

static DatabaseSlot *my_database = NULL;
static FeedSlot *last_feed = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void request(void);
static void startup(void);
static Size state_size(void);
static bool have_feeds(Oid database);
static void offer_feed(void);
static void wake_worker_of(FeedSlot *feed, bool ours);
static DatabaseSlot *find_database(void);

void
es_shared_state_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/* Those that are only looked at once, at the start, need slots too. */
int
es_num_databases(void)
{
	return es_max_event_tables + 200;
}

static Size
state_size(void)
{
	Size		size = MAXALIGN(sizeof(SharedState));

	size = add_size(size, MAXALIGN(mul_size(es_num_databases(), sizeof(DatabaseSlot))));
	size = add_size(size, MAXALIGN(mul_size(es_max_event_tables, sizeof(FeedSlot))));
	return add_size(size, mul_size(es_max_projectors, sizeof(ProjectorSlot)));
}

static void
request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(state_size());
	RequestNamedLWLockTranche("event_store", 1);
}

static void
startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	es_shared = ShmemInitStruct("event_store", state_size(), &found);
	if (!found)
	{
		MemSet(es_shared, 0, state_size());
		es_shared->lock = &GetNamedLWLockTranche("event_store")->lock;
		es_shared->databases = (DatabaseSlot *) ((char *) es_shared + MAXALIGN(sizeof(SharedState)));
		es_shared->feeds = (FeedSlot *) ((char *) es_shared->databases +
										 MAXALIGN(es_num_databases() * sizeof(DatabaseSlot)));
		es_shared->projectors = (ProjectorSlot *) ((char *) es_shared->feeds +
												   MAXALIGN(es_max_event_tables * sizeof(FeedSlot)));
		es_shared->scarce = true;
		es_shared->refusal_reported_at = -ES_NEVER / 2;
		ConditionVariableInit(&es_shared->left);
		ConditionVariableInit(&es_shared->progressed);
		for (int i = 0; i < es_num_databases(); i++)
		{
			pg_atomic_init_u32(&es_shared->databases[i].wanted, 0);
			pg_atomic_init_u32(&es_shared->databases[i].rescan, 0);
			pg_atomic_init_u32(&es_shared->databases[i].projections_changed, 0);
		}
		for (int i = 0; i < es_max_event_tables; i++)
		{
			FeedSlot   *feed = &es_shared->feeds[i];

			pg_atomic_init_u32(&feed->dirty, 0);
			pg_atomic_init_u64(&feed->published, 0);
			pg_atomic_init_u64(&feed->notifications, 0);
			pg_atomic_init_u64(&feed->notified_time, 0);
			ConditionVariableInit(&feed->risen);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

MonotonicTime
es_now(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (MonotonicTime) INSTR_TIME_GET_MICROSEC(now);
}

/* With the lock held. */
DatabaseSlot *
es_find_database(Oid database)
{
	for (int i = 0; i < es_num_databases(); i++)
		if (es_shared->databases[i].database == database)
			return &es_shared->databases[i];
	return NULL;
}

/*
 * The slot of a database, which it gets if it has none; NULL: all are taken.
 * With keep_out no worker may enter any more, and the slot stays.
 */
DatabaseSlot *
es_database_slot(Oid database, bool keep_out)
{
	DatabaseSlot *db;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	db = es_find_database(database);
	if (db == NULL && (db = es_find_database(InvalidOid)) != NULL)
	{
		db->worker_pid = 0;
		db->worker_latch = NULL;
		db->starting = false;
		db->unserved = es_shared->scarce;
		db->notifies = true;
		db->keep_out = 0;
		db->failures = 0;
		db->retry_at = db->started_at = 0;
		db->wants_projector = 0;
		pg_atomic_write_u32(&db->wanted, 0);
		pg_atomic_write_u32(&db->rescan, 0);
		pg_write_barrier();
		db->database = database;
	}
	if (db && keep_out)
		db->keep_out++;
	LWLockRelease(es_shared->lock);
	return db;
}

/* Frees the slot if nobody needs it.  With the lock held. */
void
es_free_database(DatabaseSlot *db)
{
	Oid			database = db->database;

	if (db->worker_pid != 0 || db->starting || db->keep_out > 0 || have_feeds(database) ||
		es_have_projectors(database))
		return;
	db->database = InvalidOid;
	pg_memory_barrier();
	if (pg_atomic_read_u32(&db->wanted))
		db->database = database;
}

static bool
have_feeds(Oid database)
{
	for (int i = 0; i < es_shared->num_feeds; i++)
		if (es_shared->feeds[i].database == database)
			return true;
	return false;
}

static DatabaseSlot *
find_database(void)
{
	if (my_database == NULL || my_database->database != MyDatabaseId)
		my_database = es_database_slot(MyDatabaseId, false);
	return my_database;
}

/* The slot of an event table of this database, if it has one. */
FeedSlot *
es_find_feed(Oid table)
{
	if (es_shared == NULL)
		return NULL;
	if (last_feed && last_feed->table == table && last_feed->database == MyDatabaseId)
		return last_feed;
	for (int i = 0; i < *(volatile int *) &es_shared->num_feeds; i++)
		if (es_shared->feeds[i].table == table &&
			es_shared->feeds[i].database == MyDatabaseId)
			return last_feed = &es_shared->feeds[i];
	return NULL;
}

/*
 * The slot of an event table of this database.  NULL without preload, on a
 * standby, and when all slots are taken: then everybody does without a worker.
 */
FeedSlot *
es_feed_slot(Oid table)
{
	FeedSlot   *feed = NULL;

	if (es_shared == NULL || RecoveryInProgress() || find_database() == NULL)
		return NULL;
	if ((feed = es_find_feed(table)) != NULL)
		return feed;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	feed = es_find_feed(table);
	for (int i = 0; feed == NULL && i < es_max_event_tables; i++)
	{
		if (OidIsValid(es_shared->feeds[i].database))
			continue;
		feed = &es_shared->feeds[i];
		pg_atomic_write_u32(&feed->dirty, 0);
		pg_atomic_write_u64(&feed->published, 0);
		pg_atomic_write_u64(&feed->notifications, 0);
		pg_atomic_write_u64(&feed->notified_time, 0);
		feed->notified = 0;
		feed->recorded = -1;
		feed->looked_at = feed->notified_at = feed->recorded_at = feed->record_after = 0;
		feed->look_again = ES_NEVER;
		feed->back_off = 0;
		feed->failures = feed->record_failures = 0;
		feed->projected = false;
		feed->table = table;
		pg_write_barrier();
		feed->database = MyDatabaseId;
		es_shared->num_feeds = Max(es_shared->num_feeds, i + 1);
	}
	if (feed == NULL)
		es_shared->feeds_wanting = true;
	LWLockRelease(es_shared->lock);
	last_feed = feed;
	return feed;
}

/* The worker does so when it finds that there is no such table any more. */
void
es_free_feed(FeedSlot *feed)
{
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	feed->database = InvalidOid;
	pg_memory_barrier();
	/* Somebody has appended to it after we looked?  Look again. */
	if (pg_atomic_read_u32(&feed->dirty))
		feed->database = MyDatabaseId;
	else if (es_shared->feeds_wanting)
		offer_feed();
	LWLockRelease(es_shared->lock);
	ConditionVariableBroadcast(&feed->risen);
}

/* There is a slot again: all workers shall look who has none. */
static void
offer_feed(void)
{
	es_shared->feeds_wanting = false;
	for (int i = 0; i < es_num_databases(); i++)
	{
		DatabaseSlot *db = &es_shared->databases[i];

		if (!OidIsValid(db->database))
			continue;
		pg_atomic_exchange_u32(&db->rescan, 1);
		if (db->worker_latch)
			SetLatch(db->worker_latch);
		else
			pg_atomic_exchange_u32(&db->wanted, 1);
	}
	if (es_shared->launcher_latch)
		SetLatch(es_shared->launcher_latch);
}

/* Will a worker notify the listeners of that table? */
bool
es_worker_notifies(FeedSlot *feed)
{
	return feed != NULL && es_worker_serves() && my_database->notifies;
}

/* Is there a worker for this database, or will there be as soon as it is needed? */
bool
es_worker_serves(void)
{
	return es_shared != NULL && es_shared->launcher_pid != 0 &&
		find_database() != NULL && !my_database->unserved;
}

/* The worker of this database; 0 for none. */
pid_t
es_worker_pid(void)
{
	return es_shared && find_database() ? my_database->worker_pid : 0;
}

/*
 * A transaction has ended that had appended to the table.  Called when its
 * locks are released, so nothing here may fail.  If the slot has become that of
 * another table meanwhile, the flag is up there now, so that its worker has to be
 * woken all the same.
 */
void
es_wake_feed(FeedSlot *feed, Oid table)
{
	while (feed)
	{
		uint32		was = pg_atomic_exchange_u32(&feed->dirty, 1);
		bool		ours = feed->table == table && feed->database == MyDatabaseId;

		if (was == 0)
			wake_worker_of(feed, ours);
		if (ours)
			return;
		feed = es_feed_slot(table);
	}
}

static void
wake_worker_of(FeedSlot *feed, bool ours)
{
	DatabaseSlot *db;
	Latch	   *latch = NULL;

	if (ours)
	{
		es_wake_worker();
		return;
	}
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	if (OidIsValid(feed->database) && (db = es_find_database(feed->database)) != NULL)
	{
		latch = db->worker_latch;
		if (latch == NULL)
		{
			pg_atomic_exchange_u32(&db->wanted, 1);
			latch = es_shared->launcher_latch;
		}
	}
	LWLockRelease(es_shared->lock);
	if (latch)
		SetLatch(latch);
}

/* Wakes the worker of this database, or has one started. */
void
es_wake_worker(void)
{
	Latch	   *latch;

	do
	{
		if (find_database() == NULL)
			return;
		pg_memory_barrier();
		latch = *(Latch *volatile *) &my_database->worker_latch;
		if (latch == NULL)
		{
			pg_atomic_exchange_u32(&my_database->wanted, 1);
			latch = *(Latch *volatile *) &es_shared->launcher_latch;
		}
	} while (my_database->database != MyDatabaseId);
	if (latch)
		SetLatch(latch);
}

/*
 * A prepared transaction has been committed or rolled back, by somebody who
 * does not know what it has appended.  It holds back the marks of the tables
 * that the worker already looks at again and again.
 */
void
es_wake_for_prepared(void)
{
	if (es_shared == NULL)
		return;
	/* It may have changed projections, too. */
	es_projections_changed(true);
	for (int i = 0; i < es_shared->num_feeds; i++)
	{
		FeedSlot   *feed = &es_shared->feeds[i];

		if (feed->database == MyDatabaseId && feed->look_again != ES_NEVER &&
			pg_atomic_exchange_u32(&feed->dirty, 1) == 0)
			wake_worker_of(feed, feed->database == MyDatabaseId);
	}
}

/*
 * Event tables may have gone, in ways that nobody has followed.  Where there is
 * no worker, none is wanted for that.
 */
void
es_rescan(void)
{
	Latch	   *latch;

	if (es_shared == NULL || find_database() == NULL)
		return;
	pg_atomic_exchange_u32(&my_database->rescan, 1);
	latch = *(Latch *volatile *) &my_database->worker_latch;
	if (latch)
		SetLatch(latch);
}

/*
 * Whoever runs projections shall look which there are; and have a worker look,
 * also where there is none yet.  Called when locks are released, so nothing here
 * may fail.
 */
void
es_projections_changed(bool have_worker)
{
	if (es_shared == NULL || find_database() == NULL)
		return;
	pg_atomic_fetch_add_u32(&my_database->projections_changed, 1);
	if (have_worker || *(Latch *volatile *) &my_database->worker_latch)
		es_wake_worker();
	LWLockAcquire(es_shared->lock, LW_SHARED);
	es_set_projector_latches(MyDatabaseId);
	LWLockRelease(es_shared->lock);
}

/* The database has been dropped: nobody can be in it any more. */
void
es_forget_database(DatabaseSlot *db, Oid database)
{
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < es_shared->num_feeds; i++)
		if (es_shared->feeds[i].database == database)
			es_shared->feeds[i].database = InvalidOid;
	es_forget_projectors(database);
	if (db->database == database)
	{
		db->starting = false;
		pg_atomic_exchange_u32(&db->wanted, 0);
		es_free_database(db);
	}
	LWLockRelease(es_shared->lock);
}

/* Makes those who wait for events of a database look whether they should. */
void
es_wake_waiters(Oid database)
{
	for (int i = 0; i < es_shared->num_feeds; i++)
		if (es_shared->feeds[i].database == database)
			ConditionVariableBroadcast(&es_shared->feeds[i].risen);
}
