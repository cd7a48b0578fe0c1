/*
 * projector_state.c
 *	  Shared memory: which processes run projections, and who waits for one.
 *
 * The life of a slot, all of it under es_shared->lock:
 *
 *	  free -> starting		the database's worker has asked for a process
 *	  starting -> running	the process has taken possession of it
 *	  running -> leaving	it has no latch any more: nobody relies on it
 *	  leaving -> left		the process has gone; its worker shall read why
 *	  left -> free
 *
 * Where there is nothing to read, or no worker, "left" is skipped.  What is
 * starting or left when the worker goes is freed; a process that finds its slot
 * taken or free leaves.
 *
 * Who waits for a slot: the worker of a database.  It sets the latches of all
 * projectors, which leave then, and is woken when a slot is free.  Databases get
 * slots in the order in which they began to wait.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "projector_state.h"
#include "settings.h"
#include "storage/ipc.h"

/* Milliseconds between two looks of a waiter, without and with wake-ups. */
#define POLL			50
#define LAST_RESORT		1000

static void at_projector_exit(int code, Datum arg);

bool
es_have_projectors(Oid database)
{
	for (int i = 0; i < es_max_projectors; i++)
		if (es_shared->projectors[i].database == database)
			return true;
	return false;
}

/* Some that are starting, or have left and said why. */
bool
es_have_projectors_to_attend(Oid database)
{
	for (int i = 0; i < es_max_projectors; i++)
		if (es_shared->projectors[i].database == database && es_shared->projectors[i].pid == 0)
			return true;
	return false;
}

/* Of one database, or of all if InvalidOid. */
void
es_set_projector_latches(Oid database)
{
	for (int i = 0; i < es_max_projectors; i++)
	{
		ProjectorSlot *slot = &es_shared->projectors[i];

		if (slot->latch && (slot->database == database || !OidIsValid(database)))
			SetLatch(slot->latch);
	}
}

/*
 * Makes them look whether they must leave, or ends them at once.  Are there any?
 * A pid in a slot is that of a living process: it is erased before it exits.
 */
bool
es_evict_projectors(Oid database, bool terminate)
{
	bool		any = false;

	for (int i = 0; i < es_max_projectors; i++)
	{
		ProjectorSlot *slot = &es_shared->projectors[i];

		if (slot->database != database || slot->pid == 0)
			continue;
		any = true;
		if (terminate)
			kill(slot->pid, SIGTERM);
		else if (slot->latch)
			SetLatch(slot->latch);
	}
	return any;
}

/* The worker goes, or the database: nobody reads any more who has left. */
void
es_forget_projectors(Oid database)
{
	for (int i = 0; i < es_max_projectors; i++)
		if (es_shared->projectors[i].database == database && es_shared->projectors[i].pid == 0)
			es_free_projector(&es_shared->projectors[i]);
}

void
es_free_projector(ProjectorSlot *slot)
{
	MemSet(slot, 0, sizeof(*slot));
	if (es_shared->projectors_wanted == 0)
		return;
	for (int i = 0; i < es_num_databases(); i++)
	{
		DatabaseSlot *db = &es_shared->databases[i];

		if (db->wants_projector > 0 && db->worker_latch)
			SetLatch(db->worker_latch);
	}
}

/* This database's worker waits for a slot, or does no more. */
void
es_want_projector(DatabaseSlot *db, bool want)
{
	if (want && db->wants_projector == 0)
	{
		db->wants_projector = es_now();
		es_shared->projectors_wanted++;
	}
	else if (!want && db->wants_projector > 0)
	{
		db->wants_projector = 0;
		es_shared->projectors_wanted--;
	}
	if (want)
		es_set_projector_latches(InvalidOid);
}

/*
 * A free slot for an owner's process, marked as starting; NULL: there is none
 * for this database, as long as others have waited longer.
 */
ProjectorSlot *
es_take_projector_slot(DatabaseSlot *db, Oid owner, bool extra)
{
	ProjectorSlot *slot = NULL;
	int			spare = 0;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < es_max_projectors; i++)
	{
		if (OidIsValid(es_shared->projectors[i].database))
			continue;
		slot = &es_shared->projectors[i];
		spare++;
	}
	for (int i = 0; es_shared->projectors_wanted > 0 && i < es_num_databases(); i++)
	{
		DatabaseSlot *other = &es_shared->databases[i];

		if (other != db && other->wants_projector > 0 &&
			(db->wants_projector == 0 || other->wants_projector < db->wants_projector))
			spare--;
	}
	if (spare <= 0 || (extra && es_shared->projectors_wanted > 0))
		slot = NULL;
	else
	{
		slot->database = db->database;
		slot->owner = owner;
		slot->starting = true;
		slot->extra = extra;
		slot->started_at = es_now();
		slot->return_at = ES_NEVER;
	}
	LWLockRelease(es_shared->lock);
	return slot;
}

/*
 * A process takes possession of its slot; NULL if it must not.  Before it
 * connects: so that what happens at exit happens when the connection is gone.
 */
DatabaseSlot *
es_claim_projector_slot(ProjectorSlot *slot)
{
	DatabaseSlot *db = NULL;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	if (slot->starting && (db = es_find_database(slot->database)) != NULL)
	{
		slot->starting = false;
		if (db->keep_out > 0)
		{
			es_free_projector(slot);
			pg_atomic_exchange_u32(&db->wanted, 1);
			db = NULL;
		}
		else
		{
			slot->pid = MyProcPid;
			slot->latch = MyLatch;
			slot->started_at = es_now();
		}
	}
	LWLockRelease(es_shared->lock);
	if (db)
		on_shmem_exit(at_projector_exit, PointerGetDatum(slot));
	return db;
}

/* Where there is no worker to come back to this, one shall come. */
static void
at_projector_exit(int code, Datum arg)
{
	ProjectorSlot *slot = (ProjectorSlot *) DatumGetPointer(arg);
	DatabaseSlot *db;
	bool		come_back;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	db = es_find_database(slot->database);
	slot->pid = 0;
	slot->latch = NULL;
	slot->failed = code != 0;
	come_back = slot->failed || slot->return_at != ES_NEVER;
	if (come_back && db && db->worker_latch)
		SetLatch(db->worker_latch);
	else
	{
		es_free_projector(slot);
		if (come_back && db)
		{
			pg_atomic_exchange_u32(&db->wanted, 1);
			if (es_shared->launcher_latch)
				SetLatch(es_shared->launcher_latch);
		}
		if (db)
			es_free_database(db);
	}
	LWLockRelease(es_shared->lock);
	ConditionVariableBroadcast(&es_shared->left);
}

/* How many of this database and owner there are, or will be. */
int
es_count_projectors(Oid owner)
{
	int			count = 0;

	LWLockAcquire(es_shared->lock, LW_SHARED);
	for (int i = 0; i < es_max_projectors; i++)
	{
		ProjectorSlot *slot = &es_shared->projectors[i];

		if (slot->database == MyDatabaseId && slot->owner == owner &&
			(slot->starting || slot->latch))
			count++;
	}
	LWLockRelease(es_shared->lock);
	return count;
}

/* Any of this database and owner; 0: there is none. */
pid_t
es_projector_pid(Oid owner)
{
	pid_t		pid = 0;

	if (es_shared == NULL)
		return 0;
	LWLockAcquire(es_shared->lock, LW_SHARED);
	for (int i = 0; pid == 0 && i < es_max_projectors; i++)
		if (es_shared->projectors[i].database == MyDatabaseId &&
			es_shared->projectors[i].owner == owner)
			pid = es_shared->projectors[i].pid;
	LWLockRelease(es_shared->lock);
	return pid;
}

/* Does it wait for a projector, and no other database for longer?  A hint. */
bool
es_waits_longest(DatabaseSlot *db)
{
	MonotonicTime since = db->wants_projector;

	for (int i = 0; since > 0 && i < es_num_databases(); i++)
	{
		DatabaseSlot *other = &es_shared->databases[i];

		if (other != db && OidIsValid(other->database) && other->worker_pid != 0 &&
			other->wants_projector > 0 && other->wants_projector < since)
			return false;
	}
	return since > 0;
}

/* A commit has moved the checkpoint of some projection: those who wait shall look. */
void
es_projection_progressed(void)
{
	if (es_shared)
		ConditionVariableBroadcast(&es_shared->progressed);
}

/*
 * Sleeps until some projection has progressed, or for a while; false: the
 * deadline has passed.  The first call returns at once, and puts us on the list:
 * so whoever looks after each call misses nothing.  When done:
 * ConditionVariableCancelSleep(), as an error does by itself.
 */
bool
es_wait_for_progress(MonotonicTime deadline)
{
	MonotonicTime left = (deadline - es_now() + 999) / 1000;

	if (left <= 0)
		return false;
	if (es_shared && !RecoveryInProgress())
		(void) ConditionVariableTimedSleep(&es_shared->progressed, Min(left, LAST_RESORT),
										   PG_WAIT_EXTENSION);
	else
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, POLL), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}
