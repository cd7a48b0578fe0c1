/*
 * projectors.c
 *	  The worker's part in running projections: which owners have any, and
 *	  starting processes for them.
 *
 * The worker is a superuser and a projection is its owner's code: so it is run
 * by another process, a projector, which is that owner (projector.c).  The
 * worker knows who follows which event table, and reads that anew when it has
 * changed.  When a table's checkpoint has risen it sets the projectors' latches
 * and starts one for each owner who has none.
 *
 * Where no slot is free it waits for one (projector_state.c).  Where a process
 * cannot be had, or fails, it tries again later, less and less often.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "compat.h"
#include "launcher.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "project.h"
#include "projector_state.h"
#include "projectors.h"
#include "session.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* Microseconds. */
#define REFUSED_ONCE	INT64CONST(100000)	/* the postmaster may be slow to notice an exit */
#define WAIT_FOR_SLOT	INT64CONST(1000000) /* the last resort */
#define WARN_INTERVAL	INT64CONST(600000000)	/* of all workers */

typedef struct Owner
{
	Oid			oid;
	List	   *event_tables;	/* OIDs */
	int			partitions;
	MonotonicTime wake_at;		/* there is work for a projector then; ES_NEVER */
	MonotonicTime retry_at;		/* not before this, after a failure */
	int			failures;
	bool		warned;
} Owner;

static MemoryContext context;	/* of what follows */
static List *owners = NIL;		/* of Owner */
static bool loaded = false;
static MonotonicTime reload_after = 0;
static int	reload_failures = 0;

/* By slot; NULL: not started by this process. */
static BackgroundWorkerHandle **handles = NULL;
static MonotonicTime refused_until = 0;
static int	refusals = 0;

static void reload(DatabaseSlot *db);
static void keep(List *partitions);
static void note_followed(void);
static Owner *find_owner(List *list, Oid oid);
static void collect(DatabaseSlot *db);
static void note_left(const ProjectorSlot *left);
static void note_failure(Owner *owner);
static void help(DatabaseSlot *db, Oid oid);
static MonotonicTime start_wanted(DatabaseSlot *db);
static Owner *choose(MonotonicTime *next);
static bool role_can_work(Owner *owner);
static bool start_projector(ProjectorSlot *slot);
static void note_refusal(ProjectorSlot *slot);

/* Event tables may have come, or got slots. */
void
es_reload_projections(void)
{
	loaded = false;
}

/* Does what there is to do; returns when to do so again. */
MonotonicTime
es_attend_projectors(DatabaseSlot *db)
{
	bool		changed;

	if (handles == NULL)
		handles = MemoryContextAllocZero(TopMemoryContext,
										 es_max_projectors * sizeof(BackgroundWorkerHandle *));
	changed = !loaded || pg_atomic_read_u32(&db->projections_changed) != db->projections_seen;
	if (changed && reload_after <= es_now())
		reload(db);
	collect(db);
	return Min(start_wanted(db), reload_after > es_now() ? reload_after : ES_NEVER);
}

/* An event table's checkpoint has risen. */
void
es_wake_projectors(Oid event_table)
{
	ListCell   *lc;

	foreach(lc, owners)
	{
		Owner	   *owner = lfirst(lc);

		if (list_member_oid(owner->event_tables, event_table))
			owner->wake_at = Min(owner->wake_at, es_now());
	}
	LWLockAcquire(es_shared->lock, LW_SHARED);
	es_set_projector_latches(MyDatabaseId);
	LWLockRelease(es_shared->lock);
}

/*
 * Reads who follows which event tables.  Everybody gets a projector once then,
 * which looks for itself.
 */
static void
reload(DatabaseSlot *db)
{
	uint32		generation = pg_atomic_read_u32(&db->projections_changed);

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		keep(es_background_partitions(InvalidOid));
		PopActiveSnapshot();
		CommitTransactionCommand();
		db->projections_seen = generation;
		loaded = true;
		reload_failures = 0;
		reload_after = 0;
	}
	PG_CATCH();
	{
		loaded = false;
		reload_after = es_recover(&reload_failures);
	}
	PG_END_TRY();

	note_followed();
	LWLockAcquire(es_shared->lock, LW_SHARED);
	es_set_projector_latches(MyDatabaseId);
	LWLockRelease(es_shared->lock);
}

/* Makes the list of owners anew; what is known of their failures stays. */
static void
keep(List *partitions)
{
	MemoryContext new = AllocSetContextCreate(TopMemoryContext, "event_store owners of projections",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(new);
	List	   *list = NIL;
	ListCell   *lc;

	foreach(lc, partitions)
	{
		Partition  *partition = lfirst(lc);
		Owner	   *owner = find_owner(list, partition->owner);

		if (owner == NULL)
		{
			Owner	   *before = find_owner(owners, partition->owner);

			owner = palloc0(sizeof(Owner));
			if (before)
				*owner = *before;
			owner->oid = partition->owner;
			owner->event_tables = NIL;
			owner->partitions = 0;
			owner->wake_at = Min(before ? before->wake_at : ES_NEVER, es_now());
			list = lappend(list, owner);
		}
		owner->event_tables = list_append_unique_oid(owner->event_tables, partition->event_table);
		owner->partitions++;
	}
	MemoryContextSwitchTo(old);
	if (context)
		MemoryContextDelete(context);
	context = new;
	owners = list;
}

/* Tells the worker which event tables to look at sooner. */
static void
note_followed(void)
{
	for (int i = 0; i < es_shared->num_feeds; i++)
	{
		FeedSlot   *feed = &es_shared->feeds[i];
		ListCell   *lc;
		bool		projected = false;

		if (feed->database != MyDatabaseId)
			continue;
		foreach(lc, owners)
			if (list_member_oid(((Owner *) lfirst(lc))->event_tables, feed->table))
				projected = true;
		feed->projected = projected;
	}
}

static Owner *
find_owner(List *list, Oid oid)
{
	ListCell   *lc;

	foreach(lc, list)
		if (((Owner *) lfirst(lc))->oid == oid)
			return lfirst(lc);
	return NULL;
}

/* Takes note of projectors that have left, did not come, or need help. */
static void
collect(DatabaseSlot *db)
{
	for (int i = 0; i < es_max_projectors; i++)
	{
		ProjectorSlot *slot = &es_shared->projectors[i];
		ProjectorSlot was;
		bool		left;
		bool		stopped;
		pid_t		pid;

		if (slot->database != MyDatabaseId || (slot->pid != 0 && !slot->overloaded))
			continue;
		stopped = slot->starting && handles[i] &&
			GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED;

		LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
		was = *slot;
		was.failed |= slot->starting && stopped;
		left = slot->database == MyDatabaseId && slot->pid == 0 && (!slot->starting || stopped);
		if (left)
			es_free_projector(slot);
		else
			slot->overloaded = false;
		LWLockRelease(es_shared->lock);
		if (left)
			note_left(&was);
		else if (was.database == MyDatabaseId && was.overloaded)
			help(db, was.owner);
	}
}

static void
note_left(const ProjectorSlot *left)
{
	Owner	   *owner = find_owner(owners, left->owner);

	if (owner == NULL)
		return;
	if (!left->failed)
	{
		/* Behind those who wait already. */
		owner->wake_at = Min(owner->wake_at, Max(left->return_at, es_now()));
		return;
	}
	if (!left->ready && !owner->warned)
		ereport(WARNING,
				(errmsg("event_store runs no projections of the role with OID %u: its process could not start",
						owner->oid),
				 errhint("The server's log says why, above. It is tried again until it works.")));
	owner->warned |= !left->ready;
	note_failure(owner);
}

/* Failures that are long ago do not count. */
static void
note_failure(Owner *owner)
{
	MonotonicTime now = es_now();

	if (now > owner->retry_at + ES_LAST_RETRY)
		owner->failures = 0;
	owner->retry_at = now + Min(ES_FIRST_RETRY << Min(owner->failures, 6), ES_LAST_RETRY);
	owner->wake_at = now;
	owner->failures++;
}

/* One more for an owner whose projectors have too much to do, if it can be had. */
static void
help(DatabaseSlot *db, Oid oid)
{
	Owner	   *owner = find_owner(owners, oid);
	ProjectorSlot *slot;

	if (owner == NULL || es_count_projectors(oid) >= owner->partitions ||
		refused_until > es_now() ||
		(slot = es_take_projector_slot(db, oid, true)) == NULL)
		return;
	if (!start_projector(slot))
		note_refusal(slot);
}

/* Starts what can be started; returns when to try again. */
static MonotonicTime
start_wanted(DatabaseSlot *db)
{
	MonotonicTime next;
	Owner	   *owner;
	ProjectorSlot *slot;

	while ((owner = choose(&next)) != NULL)
	{
		if (refused_until > es_now())
		{
			next = Min(next, refused_until);
			break;
		}
		if (!role_can_work(owner))
		{
			note_failure(owner);
			continue;
		}
		slot = es_take_projector_slot(db, owner->oid, false);
		if (slot == NULL)
		{
			next = Min(next, es_now() + WAIT_FOR_SLOT);
			break;
		}
		if (start_projector(slot))
		{
			owner->wake_at = ES_NEVER;
			refusals = 0;
		}
		else
			note_refusal(slot);
	}
	if (owner || db->wants_projector > 0)
	{
		LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
		es_want_projector(db, owner != NULL);
		LWLockRelease(es_shared->lock);
	}
	/* One that is starting may fail to, and nobody says so. */
	if (es_have_projectors_to_attend(MyDatabaseId))
		next = Min(next, es_now() + WAIT_FOR_SLOT);
	return next;
}

/*
 * The owner who has waited longest for a projector; and if there is none, when
 * there may be.
 */
static Owner *
choose(MonotonicTime *next)
{
	MonotonicTime now = es_now();
	Owner	   *chosen = NULL;
	ListCell   *lc;

	*next = ES_NEVER;
	foreach(lc, owners)
	{
		Owner	   *owner = lfirst(lc);
		MonotonicTime due = Max(owner->wake_at, owner->retry_at);

		if (owner->wake_at == ES_NEVER)
			continue;
		if (es_count_projectors(owner->oid) > 0)
			owner->wake_at = ES_NEVER;
		else if (due > now)
			*next = Min(*next, due);
		else if (chosen == NULL || due < Max(chosen->wake_at, chosen->retry_at))
			chosen = owner;
	}
	return chosen;
}

static bool
role_can_work(Owner *owner)
{
	HeapTuple	tuple;
	bool		can;

	StartTransactionCommand();
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner->oid));
	can = HeapTupleIsValid(tuple) && es_role_can_work((Form_pg_authid) GETSTRUCT(tuple));
	if (can)
		owner->warned = false;
	else if (!owner->warned && !HeapTupleIsValid(tuple))
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("event_store does not run the projections of the role with OID %u: it does not exist", owner->oid),
				 errhint("Drop them, or give them to another role.")));
	else if (!owner->warned)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("event_store does not run the projections of role \"%s\": it is not permitted to log in",
						NameStr(((Form_pg_authid) GETSTRUCT(tuple))->rolname)),
				 errhint("Give it LOGIN; it needs no password for that. Or give the projections to a role that has it.")));
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	owner->warned |= !can;
	CommitTransactionCommand();
	return can;
}

static bool
start_projector(ProjectorSlot *slot)
{
	int			number = slot - es_shared->projectors;
	BackgroundWorker worker = {
		.bgw_type = "event_store projector",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "event_store",
		.bgw_function_name = "event_store_projector_main",
		.bgw_main_arg = Int32GetDatum(number),
		.bgw_notify_pid = MyProcPid
	};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	snprintf(worker.bgw_name, BGW_MAXLEN, "event_store projector for role %u in database %u",
			 slot->owner, slot->database);
	if (handles[number])
		pfree(handles[number]);
	handles[number] = NULL;
	started = RegisterDynamicBackgroundWorker(&worker, &handles[number]);
	MemoryContextSwitchTo(old);
	return started;
}

/* There are no more background workers to be had on this server. */
static void
note_refusal(ProjectorSlot *slot)
{
	MonotonicTime now = es_now();
	Oid			oid;
	bool		warn;

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	warn = refusals > 0 && es_shared->refusal_reported_at + WARN_INTERVAL <= now;
	if (warn)
		es_shared->refusal_reported_at = now;
	oid = slot->owner;
	es_free_projector(slot);
	es_make_room_for_projector();
	LWLockRelease(es_shared->lock);
	if (warn)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("event_store has no background process for the projections of the role with OID %u: there are too few",
						oid),
				 errdetail("They are run later."),
				 errhint("Raise max_worker_processes, which is %d.", max_worker_processes)));
	refused_until = now + (refusals == 0 ? REFUSED_ONCE :
								Min(ES_FIRST_RETRY << Min(refusals - 1, 6), ES_LAST_RETRY));
	refusals++;
}
