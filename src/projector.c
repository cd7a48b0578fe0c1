/*
 * projector.c
 *	  A projector: runs the projections of one owner in one database.
 *
 * A background process that is the owner, whose code it runs; started by the
 * worker of the database (projectors.c).  It goes round the partitions that
 * are due and runs one batch of each (es_project_step), so that many share it
 * fairly.  Several of one owner do the same: the lock of a partition sorts them out.
 *
 * A partition is due until it has caught up, and again when its event table's
 * checkpoint, as the worker has published it, is above what had been published
 * when it did.  Where no worker publishes, once a second.
 *
 * No wake-up is lost: it sleeps only if nothing is due after its latch was reset
 * last, and nothing has been run since; what is run resets the latch too.  It
 * leaves by giving up its latch under the lock, and looks once more then.
 * While it sleeps it has no transaction, no snapshot and no lock.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "launcher.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "project.h"
#include "projector_state.h"
#include "session.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Microseconds. */
#define FIRST_BACK_OFF	INT64CONST(20000)	/* somebody else has the partition */
#define LAST_BACK_OFF	INT64CONST(1000000)
#define POLL			INT64CONST(1000000) /* without a worker */
#define RELOAD_INTERVAL INT64CONST(100000)	/* if nothing but a step asks for it */
#define TURN			INT64CONST(1000000) /* when others wait */
#define OVERLOADED		INT64CONST(100000)	/* busy for so long without a pause */
#define HELP_INTERVAL	INT64CONST(1000000) /* between two calls for help */
#define EXTRA_IDLE		INT64CONST(1000000) /* a helper does not stay for long */

/* A partition, and when it is to be run. */
typedef struct Task
{
	Partition	partition;
	FeedSlot   *feed;
	StepResult	result;			/* the last one */
	int64		seen;			/* published when it was run last */
	MonotonicTime again;		/* by itself: ES_NEVER, or when */
	MonotonicTime run_at;
	int64		back_off;
} Task;

PGDLLEXPORT void event_store_projector_main(Datum arg);

static ProjectorSlot *slot;
static DatabaseSlot *database;

static MemoryContext context;	/* of the tasks */
static MemoryContext step_context;
static Task *tasks;
static int	num_tasks = 0;
static int	turn = 0;			/* the next of them */
static int	unfinished = 0;		/* in this round */
static uint32 generation;		/* of the database's projections, as loaded */
static MonotonicTime loaded_at;
static bool stale = true;		/* something is gone: load again */

static MonotonicTime busy_at;	/* when something has been done last */
static MonotonicTime awake_since;
static MonotonicTime called_at; /* for help */

static void prepare(void);
static bool must_load(void);
static void load(void);
static void adopt(List *partitions);
static Task *choose(MonotonicTime *next);
static void next_turn(void);
static MonotonicTime when_due(Task *task);
static FeedSlot *feed_of(Task *task);
static int64 published(Task *task);
static void run(Task *task);
static MonotonicTime at_time(TimestampTz time);
static MonotonicTime idle_until(void);
static bool must_leave(bool busy, MonotonicTime next);
static bool may_leave(MonotonicTime return_at, bool for_others);

void
event_store_projector_main(Datum arg)
{
	slot = &es_shared->projectors[DatumGetInt32(arg)];
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	database = es_claim_projector_slot(slot);
	if (database == NULL)
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(slot->database, slot->owner, ES_BYPASS_LOGIN);
	prepare();

	for (;;)
	{
		MonotonicTime next;
		Task	   *task;

		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		while (database->keep_out == 0 && must_load())
			load();

		task = choose(&next);
		if (must_leave(task != NULL, next))
			proc_exit(0);
		if (task)
		{
			run(task);
			continue;
		}
		if (stale)
			next = Min(next, loaded_at + RELOAD_INTERVAL);
		next = Min(next, idle_until());
		pgstat_report_stat(true);
		pgstat_report_activity(STATE_IDLE, "waiting for events");
		es_sleep(next == ES_NEVER ? -1 : Max((next - es_now() + 999) / 1000, 0));
		awake_since = es_now();
	}
}

static void
prepare(void)
{
	es_prepare_session(slot->owner);
	es_is_projector = true;
	step_context = AllocSetContextCreate(TopMemoryContext, "event_store projector",
										 ALLOCSET_DEFAULT_SIZES);
	busy_at = awake_since = es_now();
	loaded_at = busy_at - RELOAD_INTERVAL;
	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	slot->ready = true;
	LWLockRelease(es_shared->lock);
}

static bool
must_load(void)
{
	return tasks == NULL || pg_atomic_read_u32(&database->projections_changed) != generation ||
		(stale && loaded_at + RELOAD_INTERVAL <= es_now());
}

/* Finds out which partitions there are. */
static void
load(void)
{
	generation = pg_atomic_read_u32(&database->projections_changed);
	stale = false;
	pgstat_report_activity(STATE_RUNNING, "looking for projections");
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	adopt(es_background_partitions(slot->owner));
	PopActiveSnapshot();
	CommitTransactionCommand();
	loaded_at = es_now();
}

static bool
is_same(Partition *a, Partition *b)
{
	return a->number == b->number && a->rebuild == b->rebuild &&
		a->event_table == b->event_table && strcmp(a->projection, b->projection) == 0;
}

/*
 * All of them are due then.  What is known of those that stay is the size of their
 * batches; they are mostly in the same order as before.
 */
static void
adopt(List *partitions)
{
	MemoryContext new = AllocSetContextCreate(TopMemoryContext, "event_store partitions",
											  ALLOCSET_DEFAULT_SIZES);
	Task	   *list = MemoryContextAllocZero(new, (list_length(partitions) + 1) * sizeof(Task));
	int			place = 0;		/* in the old list */
	int			n = 0;
	ListCell   *lc;

	foreach(lc, partitions)
	{
		Task	   *task = &list[n++];

		task->partition = *(Partition *) lfirst(lc);
		task->partition.projection = MemoryContextStrdup(new, task->partition.projection);
		task->result = ES_STEP_MORE;
		task->again = at_time(task->partition.retry_at);
		for (int i = 0; i < num_tasks; i++)
		{
			Task	   *before = &tasks[(place + i) % num_tasks];

			if (!is_same(&before->partition, &task->partition))
				continue;
			task->partition.count = before->partition.count;
			place += i + 1;
			break;
		}
	}
	if (context)
		MemoryContextDelete(context);
	else
		turn = MyProcPid;		/* several of one owner begin at different ones */
	context = new;
	tasks = list;
	num_tasks = n;
	turn = n > 0 ? turn % n : 0;
	unfinished = 0;
}

/* The next one that is due, in turn; if none is, when one will be. */
static Task *
choose(MonotonicTime *next)
{
	MonotonicTime now = es_now();

	*next = ES_NEVER;
	for (int i = 0; i < num_tasks; i++)
	{
		Task	   *task = &tasks[turn];
		MonotonicTime due = when_due(task);

		next_turn();
		if (due <= now)
			return task;
		*next = Min(*next, due);
	}
	return NULL;
}

/* After a round: is there more to do than one can? */
static void
next_turn(void)
{
	MonotonicTime now = es_now();

	if (++turn < num_tasks)
		return;
	if (unfinished > 1 && awake_since + OVERLOADED <= now && called_at + HELP_INTERVAL <= now)
	{
		Latch	   *latch = *(Latch *volatile *) &database->worker_latch;

		called_at = now;
		LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
		slot->overloaded = true;
		LWLockRelease(es_shared->lock);
		if (latch)
			SetLatch(latch);
	}
	turn = unfinished = 0;
}

static MonotonicTime
when_due(Task *task)
{
	if (task->result != ES_STEP_CAUGHT_UP)
		return task->again;
	if (published(task) > Max(task->seen, task->partition.position))
		return 0;
	if (task->feed == NULL || *(Latch *volatile *) &database->worker_latch == NULL)
		return Min(task->again, task->run_at + POLL);
	return task->again;
}

static FeedSlot *
feed_of(Task *task)
{
	if (task->feed == NULL || task->feed->table != task->partition.event_table ||
		task->feed->database != MyDatabaseId)
		task->feed = es_find_feed(task->partition.event_table);
	return task->feed;
}

static int64
published(Task *task)
{
	FeedSlot   *feed = feed_of(task);

	return feed ? (int64) pg_atomic_read_u64(&feed->published) : 0;
}

static void
run(Task *task)
{
	Partition  *partition = &task->partition;
	int64		before = partition->position;
	MemoryContext old = MemoryContextSwitchTo(step_context);
	MonotonicTime now;

	task->seen = published(task);
	pgstat_report_activity(STATE_RUNNING, psprintf("running projection \"%s\"", partition->projection));
	task->result = es_project_step(partition);
	MemoryContextSwitchTo(old);
	MemoryContextReset(step_context);
	pgstat_report_stat(false);

	/* A handler may have tried to stay somebody else. */
	if (!es_session_is_of(slot->owner))
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("event_store projector is not the role with OID %u any more", slot->owner),
				 errdetail("It was running projection \"%s\".", partition->projection)));

	now = task->run_at = es_now();
	task->back_off = Max(task->back_off * 2, FIRST_BACK_OFF);
	switch (task->result)
	{
		case ES_STEP_MORE:
			unfinished++;
			task->back_off = 0;
			task->again = 0;
			break;
		case ES_STEP_CAUGHT_UP:
			if (partition->position >= task->seen)
			{
				task->back_off = 0;
				task->again = partition->retry_at == 0 ? ES_NEVER : at_time(partition->retry_at);
				break;
			}

			/*
			 * What was published may be out of its reach for now, behind a
			 * writer that came later.
			 */
			if (partition->position != before)
				task->back_off = FIRST_BACK_OFF;
			task->back_off = Min(task->back_off, ES_LAST_RETRY);
			task->again = now + task->back_off;
			break;
		case ES_STEP_BUSY:
			task->back_off = Min(task->back_off, LAST_BACK_OFF);
			task->again = now + task->back_off;
			break;
		case ES_STEP_RETRY:
			task->back_off = 0;
			task->again = Max(at_time(partition->retry_at), now + FIRST_BACK_OFF);
			break;
		case ES_STEP_GONE:
			task->again = ES_NEVER;
			stale = true;
			break;
	}
	if (task->result != ES_STEP_CAUGHT_UP || partition->position != before)
		busy_at = now;
}

/* 0: at once. */
static MonotonicTime
at_time(TimestampTz time)
{
	return time == 0 ? 0 : es_now() + Max(time - GetCurrentTimestamp(), 0);
}

/* Until when it stays if nothing happens. */
static MonotonicTime
idle_until(void)
{
	for (int i = 0; i < num_tasks; i++)
	{
		/* Nobody else would notice, or be in time. */
		if (tasks[i].result != ES_STEP_CAUGHT_UP || tasks[i].feed == NULL)
			return ES_NEVER;
	}
	if (slot->extra)
		return busy_at + EXTRA_IDLE;
	if (es_worker_idle_timeout < 0)
		return ES_NEVER;
	return busy_at + es_worker_idle_timeout * INT64CONST(1000000);
}

/*
 * Is it time to go?  Somebody wants the database for himself; there is nothing
 * to run, or has not been for long; or others wait: then at once if nothing is
 * due, and after a while in any case.
 */
static bool
must_leave(bool busy, MonotonicTime next)
{
	MonotonicTime now = es_now();

	if (database->keep_out > 0)
		return may_leave(0, false);
	if (num_tasks == 0)
		return may_leave(ES_NEVER, false);
	if (es_shared->projectors_wanted > 0 && (!busy || slot->started_at + TURN <= now) &&
		may_leave(busy ? 0 : next, true))
		return true;
	return !busy && idle_until() <= now && may_leave(ES_NEVER, false);
}

/*
 * From here on nobody wakes it, or counts on it; another one comes at that time.
 * False, and all is as before, if there is something to do just now; or others
 * make room already.
 */
static bool
may_leave(MonotonicTime return_at, bool for_others)
{
	bool		may = true;
	bool		news = false;
	int			leaving = 0;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < es_max_projectors; i++)
	{
		ProjectorSlot *other = &es_shared->projectors[i];

		if (other->pid != 0 && other->latch == NULL)
			leaving++;
	}
	if (for_others && leaving >= es_shared->projectors_wanted)
		may = false;
	if (return_at != 0)
		news = pg_atomic_read_u32(&database->projections_changed) != generation;
	for (int i = 0; return_at != 0 && i < num_tasks; i++)
		news |= tasks[i].result == ES_STEP_CAUGHT_UP &&
			published(&tasks[i]) > Max(tasks[i].seen, tasks[i].partition.position);
	may &= !news;
	if (may)
	{
		slot->latch = NULL;
		slot->return_at = return_at;
	}
	LWLockRelease(es_shared->lock);
	if (news)
		SetLatch(MyLatch);
	return may;
}
