/*
 * stress.h
 *	  Words that the files of the stress client share.
 *
 * A client is a thread with a connection of its own.  What it does to the event
 * table is an operation (Op): one transaction that appends, or tries to.  It notes
 * when it asked, when it was answered, and what.  The checker compares that with
 * the rows.  A row says which operation wrote it, in its data.
 */
#ifndef STRESS_H
#define STRESS_H

#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef int64_t Time;			/* nanoseconds, CLOCK_MONOTONIC */

#define MS			INT64_C(1000000)
#define SECOND		(1000 * MS)
#define NEVER		INT64_MAX

#define STREAMS		120			/* named a-0 to d-29: four categories */
#define CATEGORIES	4
#define ANY			(-1)		/* expected versions; the others are numbers */
#define EXISTS		(-4)

/* The invariants by their numbers in README.md; not all have a name here. */
enum
{
	ACKNOWLEDGED = 1, VERSIONS, EXPECTED, READERS, CHECKPOINTS, PROJECTIONS, SERVER, UNCHANGED, ORDER,
	ERRORS = 12, LIVENESS, INVARIANTS
};

/* history.c */

typedef enum Outcome
{
	OPEN,						/* not even sent */
	FAILED,						/* none of it may be there */
	UNKNOWN,					/* all of it or nothing */
	DONE
} Outcome;

/* What an operation does to one stream. */
typedef struct Part
{
	int			stream;
	int64_t		expected;
	int			nevents;		/* 0: the version is only checked */
	bool		undone;			/* by ROLLBACK TO SAVEPOINT */
	int64_t		first_version,	/* as returned; 0: nothing has been */
				last_version,
				first_position,
				last_position;
} Part;

typedef struct Op
{
	int64_t		serial;
	int			kind;			/* OpKind */
	bool		ids_given;
	bool		repeatable;		/* the same again is a duplicate */
	_Atomic(Outcome) outcome;
	Time		asked;			/* the first time */
	Time		answered;		/* NEVER, unless it is DONE */
	int64_t		first_event;	/* all events of the history are numbered */
	int			nevents;
	int			nparts;
	Part	   *parts;
	char	  (*ids)[37];		/* as returned, where none were given */
} Op;

typedef enum OpKind
{
	SINGLE, BATCH, JSON, SEVERAL, INSERT, COPY, IN_TRANSACTION
} OpKind;

/* A refusal: the stream was at that version at some instant of the call. */
typedef struct Conflict
{
	int			stream;
	int64_t		expected;
	int64_t		actual;
	Time		asked;
	Time		answered;
} Conflict;

extern uint64_t seed;

extern Op  *op_begin(OpKind kind, bool ids_given);
extern Part *op_part(Op *op, int stream, int64_t expected, int nevents);
extern void op_number(Op *op);
extern void op_done(Op *op, Time answered);
extern Op  *op_of(int64_t serial);
extern int64_t ops_begun(void);
extern int64_t events_numbered(void);
extern void note_conflict(Conflict conflict);
extern Conflict *conflicts(int64_t *count);
extern void violation(int invariant, const char *format,...) __attribute__((format(printf, 2, 3)));
extern int	violations(void);
extern void event_id(char *id, int64_t serial, int i);
extern void event_data(char *data, int64_t serial, int i);
extern int64_t known_version(int stream);
extern void learn_version(int stream, int64_t version);
extern const char *stream_name(int stream);
extern int	stream_number(const char *name);

/* connection.c */

typedef struct Buffer
{
	char	   *text;
	size_t		length;
	size_t		size;
} Buffer;

typedef enum Answer
{
	OK,
	REFUSED,					/* sqlstate, message, detail */
	LOST						/* the connection broke: nobody knows */
} Answer;

struct Client;
typedef struct Kind
{
	const char *name;
	bool		reads;			/* goes on until it has seen the end */
	void		(*run) (struct Client *client);
	const char *may_fail;		/* SQLSTATEs that it can cause itself */
} Kind;

typedef struct Client
{
	const Kind *kind;
	int			number;
	pthread_t	thread;
	uint64_t	random;
	PGconn	   *conn;
	PGresult   *result;			/* of the last query */
	char		sqlstate[6];
	char		message[1000];
	char		detail[1000];
	bool		may_be_cut;		/* the next query may end with its connection */
	bool		fresh;			/* connected anew since the client last looked */
	_Atomic(const char *) doing;
	_Atomic bool ended;
	struct Reader *reader;
	int			worker;			/* who has notified it */
	int			pid;			/* of the backend whose memory was measured */
	int64_t		used_at_first;
} Client;

typedef struct Target
{
	const char *database;
	_Atomic(const char *) host;
	const char *data;
	const char *log;
} Target;

extern Target primary;
extern Target standby;

extern Time now(void);
extern void rest(Time duration);
extern int	dice(Client *client, int sides);
extern void add(Buffer *buffer, const char *format,...) __attribute__((format(printf, 2, 3)));
extern void clear(Buffer *buffer);
extern PGconn *try_connect(Target *target, const char *name);
extern bool connected_to(Client *client, Target *target);
extern bool connected(Client *client);
extern Answer query(Client *client, const char *sql);
extern Answer copy(Client *client, const char *sql, const char *rows);
extern void disconnect(Client *client);
extern const char *value(Client *client, int row, int column);
extern int64_t number(Client *client, int row, int column);
extern void check_refusal(Client *client, const char *also);
extern bool sqlstate_in(const char *sqlstate, const char *list);
extern PGresult *must(PGconn *conn, const char *sql);

/* writers.c, transactions.c, readers.c, bystanders.c */

extern const Kind append_kinds[];
extern const Kind transaction_kinds[];
extern const Kind reader_kinds[];
extern const Kind bystander_kinds[];

extern int	some_stream(Client *client);
extern int	quiet_stream(Client *client);
extern int64_t some_version(Client *client, int stream);
extern void add_append(Buffer *sql, Op *op);
extern void take_results(Client *client, Op *op);
extern void add_events(Buffer *sql, Op *op, int from, int count, const char *format);

/* What a reader has got; it outlives its clients. */
typedef struct Seen
{
	int64_t		position;
	int64_t		serial;
	int			i;
} Seen;

/* Somebody said that all up to there can be read. */
typedef struct Promise
{
	int64_t		position;
	int64_t		above;			/* the one before */
	int64_t		rows;			/* what was there between them; -1: not counted */
	Time		asked;			/* before they were counted */
	Time		counted;
	char		event_id[37];	/* of a checkpoint; else empty */
} Promise;

typedef struct Reader
{
	char		name[32];
	int			category;		/* -1: all */
	int64_t		checkpoint;
	char		event_id[37];
	int64_t		told;			/* the newest position that it was told of */
	Seen	   *seen;
	int64_t		count;
	int64_t		size;
	Promise    *promises;
	int64_t		npromises;
	int64_t		promises_size;
	_Atomic int64_t progress;	/* = checkpoint, for main */
	_Atomic int64_t reads;
} Reader;

/* A stream as somebody read it. */
typedef struct StreamRead
{
	int			stream;
	int64_t		version;
	uint64_t	chain;
} StreamRead;

extern Reader *reader_of(Client *client, int category);
extern Reader *readers(int i);	/* NULL: no more */
extern StreamRead *stream_reads(int64_t *count);
extern uint64_t chain(uint64_t before, int64_t position, int64_t serial, int i);

/* faults.c */

extern void faults_begin(const char *list);
extern bool faults_tried(void);
extern void faults_end(void);
extern bool fault_is_on(const char *name);
extern const char *fault_errors(void);
extern void fail_over(void);
extern _Atomic int64_t crashes;
extern int64_t faults_injected(int *count_of_kinds, const char ***names, const int64_t **counts);

/* main.c */

extern _Atomic bool draining;	/* writers stop */
extern _Atomic int64_t final;	/* readers stop there; -1: not yet */
extern _Atomic bool abandoned;	/* everybody stops */
extern _Atomic int64_t count_unknown,
			count_duplicates,
			count_mutations,
			count_cuts,
			count_out_of_locks,
			count_cancelled,
			count_deadlocks;

/* checker.c, check_server.c */

typedef struct Row
{
	int64_t		position;
	int64_t		version;
	int64_t		serial;
	uint64_t	hash;
	uint64_t	chain;
	int			stream;
	int			i;
} Row;

extern void check_history(void);
extern uint64_t chain_at(int stream, int64_t version);
extern void check_readers(const Row *rows, int64_t nrows);
extern void end_prepared(void);
extern void check_calm(void);
extern void check_projections(void);
extern void watch(Client *client);
extern _Atomic bool measuring;
extern int64_t memory_used(Client *client);
extern void check_memory(Client *client, int64_t used);
extern void memory_begin(void);
extern void memory_end(void);
extern void memory_said(void);

#endif							/* STRESS_H */
