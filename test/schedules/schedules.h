/*
 * schedules.h
 *	  What the parts of `schedules` know of each other; schedules.c says what
 *	  it is.
 */
#ifndef SCHEDULES_H
#define SCHEDULES_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#define MAX_SESSIONS	4		/* with the worker */
#define MAX_OPS			10		/* of a session */
#define MAX_MOVES		200
#define MAX_EVENTS		64		/* of a schedule */

#define ANY_VERSION		(-1)
#define STREAM_EXISTS	(-4)	/* as event_store.stream_exists() */

/* The first key of the advisory locks that the worker stops at. */
#define WORKER_KEY		9

typedef enum OpKind
{
	OP_APPEND,					/* append STREAM [=VERSION | exists] [idN] */
	OP_TWICE,					/* twice STREAM: a batch of two events */
	OP_MULTI,					/* multi STREAMS: one event to each */
	OP_CHECKED,					/* checked STREAMS: to the first, if the second is empty */
	OP_INSERT,					/* insert STREAM [=VERSION]: plain SQL */
	OP_INSERT_BOTH,				/* insert_both STREAMS: in the order given */
	OP_DECLARE,					/* declare STREAM: a cursor over appends, the second fails */
	OP_FETCH,					/* fetch STREAM */
	OP_FETCH_FAILS,
	OP_LOCK,					/* keeps all other writers out, to the end or ROLLBACK TO */
	OP_LOOK,					/* takes the transaction's snapshot */
	OP_READ,					/* the next batch of the feed, from the checkpoint */
	OP_WAIT,					/* wait_for_events() */
	OP_PROJECT,					/* run_projection() */
	OP_INLINE,					/* the projection becomes inline, */
	OP_MANUAL,					/* or to be run by hand again */
	OP_BEGIN,
	OP_BEGIN_RR,				/* REPEATABLE READ */
	OP_COMMIT,
	OP_ROLLBACK,
	OP_SAVEPOINT,
	OP_ROLLBACK_TO,
	OP_PREPARE,
	OP_COMMIT_PREPARED,
	OP_ROLLBACK_PREPARED
} OpKind;

/* What an append wrote to one stream, by its answer. */
typedef struct Part
{
	char		stream;
	int64_t		first_version;
	int64_t		last_version;
	int64_t		first_position;
	int64_t		last_position;
} Part;

typedef enum Fate
{
	FATE_NONE,					/* no append, or it failed */
	FATE_OPEN,					/* its transaction has not ended */
	FATE_COMMITTED,
	FATE_ROLLED_BACK
} Fate;

/* A statement of a session, and what came of it. */
typedef struct Op
{
	OpKind		kind;
	char		text[40];		/* as the scenario has it */
	char		streams[4];
	int64_t		expected;
	int			id;				/* of the event; 0: none given */

	int			started;		/* by this move */
	int			ended;
	char		sqlstate[6];	/* empty: it went well */
	char		outcome[200];	/* in words */
	int			nparts;
	Part		parts[2];
	bool		duplicate;
	Fate		fate;
	int			commit_started; /* the moves in which it became visible */
	int			commit_ended;
	char		told_stream;	/* by SE001 */
	int64_t		told_version;
} Op;

typedef enum State
{
	STATE_RUNNING,
	STATE_READY,				/* can start its next statement */
	STATE_DONE,
	STATE_STOPPED,				/* at a point */
	STATE_BLOCKED,				/* by a lock of another session */
	STATE_ASLEEP				/* until events come: a waiter, the worker */
} State;

typedef struct Session
{
	char		name;			/* 1, 2, 3; w is the worker */
	int			key;			/* the first of its advisory locks */
	PGconn	   *conn;			/* the worker has none */
	int			pid;
	int			nops;
	Op			ops[MAX_OPS];

	State		state;
	int			point;			/* where it has stopped, from 1 on */
	int			next;			/* the statement to start */
	PGresult   *answer;			/* as far as it has come */
	bool		reads;
	int64_t		checkpoint;
	char		checkpoint_id[40];
	int			nseen;
	int64_t		seen[MAX_EVENTS];
} Session;

typedef struct Scenario
{
	const char *name;
	const char *script;			/* the sessions, divided by |; their statements by ; */
	const char *points;			/* where sessions stop; NULL: at all that they come to */
	const char *short_points;	/* in the short form; NULL: not in it, "=": the same */
	const char *setup;			/* statements before each schedule, or NULL */
	const char *allowed;		/* SQLSTATEs that may come of any statement, or NULL */
	bool		worker;
} Scenario;

/* A mistake in the protocols, and the scenario that shows it. */
typedef struct Mistake
{
	const char *name;
	const char *scenario;
	bool		in_short;
} Mistake;

/* scenarios.c */
extern const Scenario scenarios[];
extern const Mistake mistakes[];
extern const char *const worker_points;
extern const Scenario *find_scenario(const char *name);
extern const char *scenario_points(const Scenario *scenario, bool full);
extern void parse_script(const Scenario *scenario);
extern bool appends(const Op *op);
extern bool uses_projection(const Scenario *scenario);
extern void op_sql(char *sql, size_t size, Session *session, Op *op);
extern const char *event_id(int id);

/* session.c */
extern Session sessions[MAX_SESSIONS];
extern int	nsessions;
extern Session setup_session;	/* its statements are over before the first move */
extern PGconn *controller;
extern int64_t newest_notified;
extern void open_sessions(const Scenario *scenario, const char *points, const char *mistake);
extern PGresult *query(const char *sql);
extern PGresult *queryf(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void reset_sessions(void);
extern void run_setup(void);
extern void start_op(Session *session);
extern void let_go(Session *session);
extern void settle(void);
extern bool await_change(State state);
extern void cancel(Session *session);
extern const char *point_name(const Session *session, int n);

/* check.c */
extern bool violated;
extern char violation[500];
extern void violate(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void take_answer(Session *session, Op *op, PGresult *result);
extern void check_published(void);
extern void check_schedule(void);

/* schedules.c */
extern const Scenario *scenario;
extern long serial;				/* of the schedule; part of all names */
extern int	nmoves;
extern int64_t base;			/* the newest position before the first move */
extern void die(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));

#endif							/* SCHEDULES_H */
