/*
 * shared_state.h
 *	  What the backends, the launcher and the workers know of each other.
 */
#ifndef ES_SHARED_STATE_H
#define ES_SHARED_STATE_H

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

/* Microseconds of a clock that nobody sets. */
typedef int64 MonotonicTime;

#define ES_NEVER	PG_INT64_MAX

/*
 * A database in which somebody appends, and its worker.  All but the atomics
 * is protected by the lock; worker_latch is also read without, by those who
 * wake.
 */
typedef struct DatabaseSlot
{
	Oid			database;		/* invalid: the slot is free */
	pid_t		worker_pid;		/* 0: there is none */
	Latch	   *worker_latch;	/* NULL: none, or it is leaving */
	bool		starting;		/* a worker has been asked for */
	bool		unserved;		/* and could not be had */
	bool		notifies;		/* the worker does, by its settings */
	int			keep_out;		/* commands that want the database for themselves */
	int			failures;		/* since the last round that went well */
	MonotonicTime retry_at;		/* after a failure */
	MonotonicTime started_at;	/* the last worker */
	pg_atomic_uint32 wanted;	/* there is work, or may be */
	pg_atomic_uint32 rescan;	/* event tables have come or gone */

	pg_atomic_uint32 projections_changed;	/* how often: create, drop, resume */
	uint32		projections_seen;	/* by the worker */
	MonotonicTime wants_projector;	/* since when it waits for one; 0: not */
} DatabaseSlot;

/*
 * A process that runs projections of one owner in one database; see
 * projector_state.c.  All of it is protected by the lock.
 */
typedef struct ProjectorSlot
{
	Oid			database;		/* invalid: the slot is free */
	Oid			owner;
	bool		starting;		/* asked for, not there yet */
	pid_t		pid;			/* 0: starting, or it has left */
	Latch	   *latch;			/* NULL: starting, leaving or left */
	bool		ready;			/* it could connect */
	bool		extra;			/* came to help another one */
	bool		overloaded;		/* has more to do than it can */
	bool		failed;			/* left by an error */
	MonotonicTime started_at;
	MonotonicTime return_at;	/* it has left, and has work then; ES_NEVER */
} ProjectorSlot;

/*
 * An event table whose feed somebody waits for, or appends to.  The lock
 * protects database and table; the atomics are for everybody; the rest is the
 * worker's own, and here so that it outlives it.
 */
typedef struct FeedSlot
{
	Oid			database;		/* invalid: the slot is free */
	Oid			table;
	pg_atomic_uint32 dirty;		/* an appending transaction has ended */
	pg_atomic_uint64 published; /* the newest checkpoint that is readable */
	pg_atomic_uint64 notifications; /* sent since the server started */
	pg_atomic_uint64 notified_time; /* TimestampTz of the last one */
	ConditionVariable risen;	/* published has */

	int64		notified;		/* the checkpoint that listeners know */
	int64		recorded;		/* and standbys; -1: not known */
	MonotonicTime looked_at;
	MonotonicTime look_again;	/* by itself: ES_NEVER, or when */
	MonotonicTime notified_at;
	MonotonicTime recorded_at;
	MonotonicTime record_after; /* not before this, after a failure */
	int64		back_off;		/* how long it waits to look again */
	int			failures;		/* to look, since the last success */
	int			record_failures;
	bool		projected;		/* background processes follow it */
} FeedSlot;

typedef struct SharedState
{
	LWLock	   *lock;
	pid_t		launcher_pid;
	Latch	   *launcher_latch;
	bool		crowded;		/* workers should make room for others */
	int			worker_cap;		/* so many workers at most, for the sake of projectors ... */
	MonotonicTime capped_until; /* ... until then */
	bool		feeds_wanting;	/* some table has got no slot */
	bool		scarce;			/* there may be none to be had for a new database */
	ConditionVariable left;		/* some worker has */
	int			num_feeds;		/* used so far, free ones among them */
	DatabaseSlot *databases;	/* es_num_databases() of them */
	FeedSlot   *feeds;			/* es_max_event_tables of them */
	ProjectorSlot *projectors;	/* es_max_projectors of them */
	int			projectors_wanted;	/* databases that wait for one; a hint */
	MonotonicTime refusal_reported_at;	/* that there are too few processes */
	ConditionVariable progressed;	/* some projection has */
} SharedState;

extern SharedState *es_shared;	/* NULL: the library is not preloaded */

extern void es_shared_state_init(void);
extern MonotonicTime es_now(void);
extern int	es_num_databases(void);
extern DatabaseSlot *es_database_slot(Oid database, bool keep_out);
extern DatabaseSlot *es_find_database(Oid database);
extern void es_free_database(DatabaseSlot *db);
extern FeedSlot *es_feed_slot(Oid table);
extern void es_free_feed(FeedSlot *feed);
extern bool es_worker_notifies(FeedSlot *feed);
extern bool es_worker_serves(void);
extern pid_t es_worker_pid(void);
extern void es_wake_feed(FeedSlot *feed, Oid table);
extern void es_wake_worker(void);
extern void es_wake_for_prepared(void);
extern void es_rescan(void);
extern void es_projections_changed(bool have_worker);
extern FeedSlot *es_find_feed(Oid table);
extern void es_forget_database(DatabaseSlot *db, Oid database);
extern void es_wake_waiters(Oid database);

#endif							/* ES_SHARED_STATE_H */
