/*
 * xact_state.c
 *	  The locks of the append protocol, and what a transaction remembers.
 *
 * Two kinds of heavyweight locks of type LOCKTAG_USERLOCK, which nothing else
 * in PostgreSQL uses and no SQL function can take or release:
 *
 *	  stream lock		database, table, hash of the stream's name, 0xFFFF
 *	  in-flight lock	database, table, low 32 and next 16 bits of a position
 *
 * A writer holds both to the end of its transaction.  All locks here are taken
 * under TopTransactionResourceOwner.  Under the current owner, a cursor that
 * fails inside a savepoint would release what its earlier FETCHes had locked,
 * while the rows that they appended survive.  So the locks also survive
 * ROLLBACK TO SAVEPOINT, which is more than is needed, and right.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "compat.h"
#include "miscadmin.h"
#include "notify.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "test_hooks.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "xact_state.h"

#define STREAM_LOCK		0xFFFF

/* List of TableXact, in TopTransactionContext; few, so a list will do. */
static List *touched = NIL;
static bool rescan = false;		/* see es_rescan_at_end() */
static bool projections_changed = false;

static void at_transaction_end(XactEvent event, void *arg);
static void at_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg);
static void wake(bool isCommit);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId mine,
								  SubTransactionId parent, void *arg);
static void enter_feeds(void);
static TableXact *find_table(Oid relid);
static TableXact *enter_table(Oid relid);
static void set_locktag(LOCKTAG *tag, Oid relid, uint32 field3, uint16 field4);
static void announce(EventTable *table, TableXact *xact);
static int64 least_tag_of(PGPROC *proc, Oid relid, int64 mark);

Oid			es_table_being_rewritten = InvalidOid;
static SubTransactionId rewritten_in = InvalidSubTransactionId;

void
es_xact_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	RegisterResourceReleaseCallback(at_release, NULL);
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent, void *arg)
{
	/* Not if the default's function has caught an error: the rewrite goes on. */
	if (event == SUBXACT_EVENT_ABORT_SUB && mine <= rewritten_in)
		es_table_being_rewritten = InvalidOid;
}

void
es_begin_rewrite(Oid relid)
{
	es_table_being_rewritten = relid;
	rewritten_in = GetCurrentSubTransactionId();
}

/*
 * Where no worker does so, notifies the listeners just before the commit, once
 * per table.  Before PREPARE it does not: PostgreSQL would refuse the PREPARE.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	ListCell   *lc;

	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			enter_feeds();
			break;
		case XACT_EVENT_PRE_COMMIT:
			enter_feeds();
			foreach(lc, touched)
			{
				TableXact  *xact = lfirst(lc);

				if (xact->last_position > 0 &&
					(es_notify == ES_NOTIFY_TRANSACTION ||
					 (es_notify == ES_NOTIFY_AUTO && !es_worker_notifies(xact->feed))))
					es_send_notification(xact->relid, xact->last_position);
			}
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			foreach(lc, touched)
			{
				TableXact  *xact = lfirst(lc);

				es_note_position(xact->relid, xact->last_position);
			}
			es_table_being_rewritten = InvalidOid;
			break;
		default:
			break;
	}
}

/*
 * Gives the tables slots, so that a worker looks after them.  Not before: while
 * a transaction makes tables, and changes its mind, none are taken.
 */
static void
enter_feeds(void)
{
	ListCell   *lc;

	if (es_shared == NULL)
		return;
	foreach(lc, touched)
	{
		TableXact  *xact = lfirst(lc);

		if ((xact->wake || xact->last_position > 0) && xact->feed == NULL &&
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(xact->relid)))
			xact->feed = es_feed_slot(xact->relid);
	}
}

static void
at_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	if (!isTopLevel)
		return;
	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS && touched != NIL)
	{
		if (ES_BROKEN(ES_BREAK_WAKE_BEFORE_RELEASE))
			wake(isCommit);
		/* It is called for what a portal has left behind, too. */
		if (CurrentResourceOwner == TopTransactionResourceOwner)
			ES_POINT("before_release");
	}
	if (phase == RESOURCE_RELEASE_AFTER_LOCKS)
	{
		if (touched != NIL)
			ES_POINT("before_wake");
		wake(isCommit);
	}
}

/*
 * Wakes the worker, when the locks are released: only then has the mark risen.
 * Also after an abort, which can raise it too.
 */
static void
wake(bool isCommit)
{
	ListCell   *lc;

	foreach(lc, touched)
	{
		TableXact  *xact = lfirst(lc);

		if (xact->feed == NULL && (xact->wake || xact->in_flight))
			xact->feed = es_find_feed(xact->relid);
		if (xact->feed)
			es_wake_feed(xact->feed, xact->relid);
	}
	if (ES_BROKEN(ES_BREAK_WAKE_BEFORE_RELEASE) && touched != NIL)
		pg_usleep(2000);		/* the worker looks, and sees the locks */
	touched = NIL;
	if (rescan && isCommit)
		es_rescan();
	rescan = false;
	if (projections_changed && isCommit)
		es_projections_changed(true);
	projections_changed = false;
}

/* The worker shall look at this event table when the transaction has ended. */
void
es_wake_at_end(Oid relid)
{
	if (es_shared)
		enter_table(relid)->wake = true;
}

/* The worker shall look which event tables there are. */
void
es_rescan_at_end(void)
{
	rescan = true;
}

/*
 * Whoever runs projections shall look which there are.  Also if that has been
 * rolled back to a savepoint; it costs them a look.
 */
void
es_projections_changed_at_end(void)
{
	projections_changed = true;
}

static TableXact *
find_table(Oid relid)
{
	ListCell   *lc;

	foreach(lc, touched)
	{
		TableXact  *xact = lfirst(lc);

		if (xact->relid == relid)
			return xact;
	}
	return NULL;
}

static TableXact *
enter_table(Oid relid)
{
	TableXact  *xact = find_table(relid);

	if (xact == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		xact = palloc0(sizeof(TableXact));
		xact->relid = relid;
		touched = lappend(touched, xact);
		MemoryContextSwitchTo(old);
	}
	return xact;
}

/*
 * Takes the lock to the end of the top transaction.  False: it would have to be waited
 * for, and that is not wanted.
 */
bool
es_lock_to_end(const LOCKTAG *tag, LOCKMODE mode, bool wait)
{
	ResourceOwner old = CurrentResourceOwner;
	LockAcquireResult result;

	/* An error resets CurrentResourceOwner, so there is nothing to catch. */
	if (!ES_BROKEN(ES_BREAK_LOCK_UNDER_CURRENT_OWNER))
		CurrentResourceOwner = TopTransactionResourceOwner;
	result = LockAcquire(tag, mode, false, !wait);
	CurrentResourceOwner = old;
	return result != LOCKACQUIRE_NOT_AVAIL;
}

static void
set_locktag(LOCKTAG *tag, Oid relid, uint32 field3, uint16 field4)
{
	tag->locktag_field1 = MyDatabaseId;
	tag->locktag_field2 = relid;
	tag->locktag_field3 = field3;
	tag->locktag_field4 = field4;
	tag->locktag_type = LOCKTAG_USERLOCK;
	tag->locktag_lockmethodid = DEFAULT_LOCKMETHOD;
}

static void
lock_relation_to_end(Oid relid, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	(void) es_lock_to_end(&tag, mode, true);
}

/*
 * Keeps all other writers out of the table; a transaction that does so needs
 * no stream locks.
 */
void
es_lock_table_exclusively(Oid relid)
{
	lock_relation_to_end(relid, ShareRowExclusiveLock);
	enter_table(relid)->exclusive = true;
}

/*
 * Are all other writers kept out, so that stream locks are not needed?  A lock
 * that LOCK TABLE took is taken again to the end of the transaction, so that
 * nothing can release it before.
 */
bool
es_is_exclusive(EventTable *table)
{
	TableXact  *xact = find_table(table->relid);

	if (xact && xact->exclusive)
		return true;
	if (!CheckRelationLockedByMe(table->rel, ShareRowExclusiveLock, true))
		return false;
	es_lock_table_exclusively(table->relid);
	return true;
}

uint32
es_stream_hash(const text *stream)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(stream),
					  VARSIZE_ANY_EXHDR(stream));
}

/*
 * Takes the lock of the streams whose names have that hash.  Whoever takes
 * several takes them in the order of their hashes, the exclusive ones first.
 */
void
es_lock_stream(EventTable *table, uint32 hash, LOCKMODE mode)
{
	LOCKTAG		tag;

	if (ES_BROKEN(ES_BREAK_NO_STREAM_LOCK))
		return;
	set_locktag(&tag, table->relid, hash, STREAM_LOCK);
	PG_TRY();
	{
		(void) es_lock_to_end(&tag, mode, true);
	}
	PG_CATCH();
	{
		/* The name without its schema: no catalog look-ups in this state. */
		if (geterrcode() == ERRCODE_OUT_OF_MEMORY)
			errhint("A transaction that appends to very many streams should first run LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE; it then needs no lock per stream. append_streams() does so by itself.",
					quote_identifier(RelationGetRelationName(table->rel)));
		PG_RE_THROW();
	}
	PG_END_TRY();
	ES_POINT("after_stream_lock");
}

/*
 * Announces that this transaction is about to draw positions: takes the
 * in-flight lock, tagged with a position that all of ours will be above.  Once
 * per transaction and table.  Only es_draw_position() may follow; to draw
 * first and announce then would let a reader pass us by.
 */
TableXact *
es_enter_flight(EventTable *table)
{
	TableXact  *xact = enter_table(table->relid);

	if (!xact->in_flight && !ES_BROKEN(ES_BREAK_IN_FLIGHT_AFTER_NEXTVAL))
		announce(table, xact);
	return xact;
}

static void
announce(EventTable *table, TableXact *xact)
{
	int64		last = es_check_sequence(table);
	LOCKTAG		tag;

	ES_POINT("before_in_flight_lock");
	lock_relation_to_end(table->relid, RowExclusiveLock);
	set_locktag(&tag, table->relid,
				(uint32) (last & 0xFFFFFFFF), (uint16) (last >> 32));
	(void) es_lock_to_end(&tag, ShareLock, true);
	xact->tag = last;
	xact->in_flight = true;
	xact->feed = es_find_feed(table->relid);
	ES_POINT("after_in_flight_lock");
}

int64
es_draw_position(EventTable *table, TableXact *xact)
{
	int64		position = nextval_internal(table->sequence, false);

	if ((position <= xact->tag && !ES_BROKEN(ES_BREAK_SEQUENCE_CACHE)) ||
		position > ES_MAX_POSITION)
		es_unguarded(table->rel,
					 psprintf("Its sequence gave out position " INT64_FORMAT " after " INT64_FORMAT ": it has been set back.",
							  position, xact->tag));
	xact->last_position = position;
	ES_POINT("after_nextval");
	if (!xact->in_flight)
	{
		/* Only where that is the mistake; others draw meanwhile. */
		pg_usleep(200);
		announce(table, xact);
	}
	return position;
}

/* Has this transaction drawn positions of the table? */
bool
es_in_flight(Oid relid)
{
	TableXact  *xact = find_table(relid);

	return xact != NULL && xact->in_flight;
}

/* The last position that this transaction has drawn; 0: none. */
int64
es_last_drawn(Oid relid)
{
	TableXact  *xact = find_table(relid);

	return xact ? xact->last_position : 0;
}

/* A number that is another one when this transaction has appended to any event table since. */
int64
es_positions_drawn(void)
{
	int64		sum = 0;
	ListCell   *lc;

	foreach(lc, touched)
		sum += ((TableXact *) lfirst(lc))->last_position;
	return sum;
}

/*
 * The least tag of all in-flight locks on the table, whoever holds them, or
 * the mark if that is lower.
 *
 * Every look of every reader comes here, so this goes through the locks of the
 * processes of this database.  To copy the whole lock table, as pg_locks does, or to
 * ask who has locked the sequence, which looks at each process's fast-path locks
 * under an LWLock of its own, takes many times as long.  Ours are never fast-path
 * locks.  Prepared transactions are processes too, behind all others; one that
 * is being prepared moves its locks under the LWLocks that are held here.
 */
int64
es_least_tag_in_flight(Oid relid, int64 mark)
{
	int			nprocs = ProcGlobal->allProcCount + max_prepared_xacts;

	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
	for (int i = 0; i < nprocs; i++)
		if (ProcGlobal->allProcs[i].databaseId == MyDatabaseId)
			mark = least_tag_of(&ProcGlobal->allProcs[i], relid, mark);
	for (int i = NUM_LOCK_PARTITIONS - 1; i >= 0; i--)
		LWLockRelease(LockHashPartitionLockByIndex(i));
	return mark;
}

static int64
least_tag_of(PGPROC *proc, Oid relid, int64 mark)
{
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		PROCLOCK   *held = NULL;

		while ((held = es_next_proclock(&proc->myProcLocks[i], held)) != NULL)
		{
			LOCKTAG    *tag = &held->tag.myLock->tag;

			if (tag->locktag_type == LOCKTAG_USERLOCK &&
				tag->locktag_field1 == MyDatabaseId &&
				tag->locktag_field2 == relid &&
				tag->locktag_field4 != STREAM_LOCK &&
				(held->holdMask & LOCKBIT_ON(ShareLock)))
				mark = Min(mark, ((int64) tag->locktag_field4 << 32) |
						   tag->locktag_field3);
		}
	}
	return mark;
}
