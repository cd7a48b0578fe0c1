/*
 * session.c
 *	  The connections, and how to find out where everybody is.
 *
 * The controller holds the advisory locks of each session's points, two of each,
 * for which the session waits in turns.  To let a session go from one it releases
 * that lock and takes it again, which the server does in this order: first the
 * session gets it, and gives it back at once.
 *
 * Nothing is timed.  After each move the controller asks until every session has
 * an answer, waits for a lock, or sleeps; what a session waits for tells the
 * points from the locks of others.  All waits are read at one instant, so when
 * nobody runs, nobody can begin to.
 */
#define _GNU_SOURCE				/* ppoll */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "schedules.h"

/* event_store.test_in_turns: the second lock of point n has this number added. */
#define TURN		100
#define TURN_TEXT	"100"

#define PATIENCE	30.0		/* seconds until a session is taken for lost */
#define STUCK		5.0			/* until waits for each other are taken to be for ever */
#define WAKING		0.003		/* that a sleeper may need to wake */
#define PAUSE		50000		/* nanoseconds between two questions */

/* Long enough after a wait's begin for the deadlock detector to have looked. */
#define DEADLOCK_TIMEOUT	"1ms"
#define LOOKED		"8 ms"

Session		sessions[MAX_SESSIONS];
int			nsessions;
Session		setup_session;
PGconn	   *controller;
int64_t		newest_notified;

static const char *session_points;
static bool can_deadlock;

static PGconn *
open_connection(const char *mistake)
{
	PGconn	   *conn = PQconnectdb("");
	char		sql[200];
	PGresult   *result;

	if (PQstatus(conn) != CONNECTION_OK)
		die("could not connect: %s", PQerrorMessage(conn));
	snprintf(sql, sizeof(sql), "LOAD 'event_store'; SET client_min_messages = error; SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET event_store.test_break = %s",
			 mistake ? mistake : "nothing");
	result = PQexec(conn, sql);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("is the build one with TEST_HOOKS=1? %s", PQerrorMessage(conn));
	PQclear(result);
	return conn;
}

/* By the controller; an error is the end. */
PGresult *
query(const char *sql)
{
	PGresult   *result = PQexec(controller, sql);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		die("%s\n%s", sql, PQerrorMessage(controller));
	return result;
}

PGresult *
queryf(const char *format,...)
{
	char		sql[2000];
	va_list		args;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	return query(sql);
}

static void
prepare(const char *name, const char *sql)
{
	PGresult   *result = PQprepare(controller, name, sql, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("%s", PQerrorMessage(controller));
	PQclear(result);
}

static PGresult *
ask(const char *name, int nvalues, const char *const *values)
{
	PGresult   *result = PQexecPrepared(controller, name, nvalues, values, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("%s", PQerrorMessage(controller));
	return result;
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* Where the n-th lock of a session is waited for. */
const char *
point_name(const Session *session, int n)
{
	static char buffer[40];
	const char *list = session->key == WORKER_KEY ? worker_points : session_points;

	n %= TURN;
	while (--n > 0 && list)
		list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL;
	snprintf(buffer, sizeof(buffer), "%.*s", list ? (int) strcspn(list, ",") : 1, list ? list : "?");
	return buffer;
}

static int
count_points(const char *list)
{
	int			n = 1;

	while ((list = strchr(list, ',')) != NULL)
	{
		list++;
		n++;
	}
	return n;
}

/* The worker's settings are the database's, so they come before there is one. */
static void
prepare_worker(const char *mistake)
{
	const char *db = PQdb(controller);

	PQclear(queryf("ALTER DATABASE %s SET event_store.test_points = '%s'", db, worker_points));
	PQclear(queryf("ALTER DATABASE %s SET event_store.test_session = %d", db, WORKER_KEY));
	PQclear(queryf("ALTER DATABASE %s SET event_store.test_in_turns = on", db));
	PQclear(queryf("ALTER DATABASE %s SET event_store.test_only_if_woken = on", db));
	PQclear(queryf("ALTER DATABASE %s SET event_store.test_break = %s", db, mistake ? mistake : "nothing"));
	PQclear(query("SET event_store.test_points = ''"));
}

/* All objects, and an event of each session, so that no cache is cold. */
static void
prepare_database(const Scenario *scenario, const char *mistake)
{
	PQclear(query("CREATE EXTENSION event_store"));
	PQclear(query("SELECT event_store.create_event_table('ev')"));
	if (mistake && strcmp(mistake, "sequence_cache") == 0)
		PQclear(query("ALTER SEQUENCE ev_position_seq CACHE 32"));
	if (uses_projection(scenario))
	{
		PQclear(query("CREATE TABLE model (n bigserial, position bigint)"));
		PQclear(query("SELECT event_store.create_projection('p', 'ev',"
					  " 'INSERT INTO model (position) SELECT position FROM events', mode => 'manual')"));
	}
	if (scenario->worker)
	{
		PGresult   *channel = query("SELECT event_store.channel('ev')");

		PQclear(queryf("LISTEN %s", PQgetvalue(channel, 0, 0)));
		PQclear(channel);
	}
	prepare("locks", "SELECT pid, locktype = 'advisory' AND objsubid = 2 AS point, classid, objid,"
			" waitstart < clock_timestamp() - interval '" LOOKED "'"
			" FROM pg_lock_status() WHERE NOT granted");
	prepare("let_go", "SELECT pg_advisory_unlock($1::int, $2::int), pg_advisory_lock($1::int, $2::int)");
	prepare("sleepers", "SELECT pid, current_setting('event_store.test_due'),"
			" (SELECT wait_event_type FROM pg_stat_get_activity(d.pid)), backend_type"
			" FROM (SELECT pid, backend_type FROM pg_stat_activity WHERE datname = current_database()) d");
}

static void
open_session(Session *session, const char *mistake)
{
	char		sql[600];
	PGresult   *result;

	session->conn = open_connection(mistake);
	session->pid = PQbackendPID(session->conn);
	snprintf(sql, sizeof(sql),
			 "SET event_store.test_points = '';"
			 "SELECT event_store.append('ev', 'warm-%d', 'T', '1');"
			 "SET event_store.test_session = %d;"
			 "SET event_store.test_in_turns = on;"
			 "SET event_store.test_points = '%s'%s",
			 session->key, session->key, session_points,
			 can_deadlock ? "; SET deadlock_timeout = '" DEADLOCK_TIMEOUT "'" : "");
	result = PQexec(session->conn, sql);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("%s", PQerrorMessage(session->conn));
	PQclear(result);
}

static void
hold_points(const Session *session, int npoints)
{
	PQclear(queryf("SELECT pg_advisory_lock(%d, n), pg_advisory_lock(%d, n + " TURN_TEXT ") FROM generate_series(1, %d) n",
				   session->key, session->key, npoints));
}

/* Waits for a while that is too short to matter. */
static void
pause_a_little(void)
{
	struct pollfd fds[MAX_SESSIONS];
	struct timespec pause = {0, PAUSE};
	int			n = 0;

	for (int i = 0; i < nsessions; i++)
		if (sessions[i].conn && sessions[i].state == STATE_RUNNING)
			fds[n++] = (struct pollfd) {PQsocket(sessions[i].conn), POLLIN, 0};
	ppoll(fds, n, &pause, NULL);
}

/* The worker comes after the first event; then it has to fall asleep. */
static void
find_worker(Session *worker)
{
	double		deadline = now() + PATIENCE;

	for (;;)
	{
		PGresult   *result = ask("sleepers", 0, NULL);

		for (int i = 0; i < PQntuples(result); i++)
			if (strcmp(PQgetvalue(result, i, 3), "event_store worker") == 0 &&
				strcmp(PQgetvalue(result, i, 1), "off") == 0 &&
				strcmp(PQgetvalue(result, i, 2), "Extension") == 0)
				worker->pid = atoi(PQgetvalue(result, i, 0));
		PQclear(result);
		if (worker->pid)
			break;
		if (now() > deadline)
			die("no worker has come");
		pause_a_little();
	}
	worker->state = STATE_ASLEEP;
	hold_points(worker, count_points(worker_points));
}

void
open_sessions(const Scenario *scenario, const char *points, const char *mistake)
{
	session_points = points;
	can_deadlock = scenario->allowed && strstr(scenario->allowed, "40P01");
	controller = open_connection(mistake);
	if (scenario->worker)
		prepare_worker(mistake);
	prepare_database(scenario, mistake);
	for (int i = 0; i < nsessions; i++)
		if (sessions[i].key != WORKER_KEY)
		{
			open_session(&sessions[i], mistake);
			hold_points(&sessions[i], count_points(points));
		}
	setup_session.conn = controller;
	if (scenario->worker)
		find_worker(&sessions[nsessions - 1]);
}

static void
reset_ops(Session *session)
{
	for (int i = 0; i < session->nops; i++)
	{
		Op		   *op = &session->ops[i];

		op->started = op->ended = op->commit_started = op->commit_ended = -1;
		op->sqlstate[0] = op->outcome[0] = '\0';
		op->nparts = 0;
		op->duplicate = false;
		op->fate = FATE_NONE;
	}
	session->next = 0;
	session->nseen = 0;
}

/* For the next schedule. */
void
reset_sessions(void)
{
	reset_ops(&setup_session);
	for (int i = 0; i < nsessions; i++)
	{
		reset_ops(&sessions[i]);
		if (sessions[i].conn)
			sessions[i].state = STATE_READY;
	}
}

/* What is there before the first move. */
void
run_setup(void)
{
	for (int i = 0; i < setup_session.nops; i++)
	{
		Op		   *op = &setup_session.ops[i];
		char		sql[1000];

		op_sql(sql, sizeof(sql), &setup_session, op);
		take_answer(&setup_session, op, query(sql));
	}
}

/* A move: the session starts its next statement. */
void
start_op(Session *session)
{
	Op		   *op = &session->ops[session->next++];
	char		sql[1000];

	op->started = nmoves;
	op_sql(sql, sizeof(sql), session, op);
	if (!PQsendQuery(session->conn, sql))
		die("%s", PQerrorMessage(session->conn));
	session->state = STATE_RUNNING;
}

/* The other move: it goes on from where it has stopped. */
void
let_go(Session *session)
{
	char		key[12];
	char		point[12];
	const char *values[] = {key, point};

	snprintf(key, sizeof(key), "%d", session->key);
	snprintf(point, sizeof(point), "%d", session->point);
	session->state = STATE_RUNNING;
	PQclear(ask("let_go", 2, values));
}

static bool
idle(const Session *session)
{
	return session->state == STATE_READY || session->state == STATE_DONE;
}

/*
 * Takes the answer to the statement, if it is there.  An error is there before
 * the transaction has been aborted, which is another place to stop at.
 */
static void
look_for_answer(Session *session)
{
	if (!PQconsumeInput(session->conn))
		die("%s", PQerrorMessage(session->conn));
	while (!PQisBusy(session->conn))
	{
		Op		   *op = &session->ops[session->next - 1];
		PGresult   *result = PQgetResult(session->conn);

		if (result)
		{
			PQclear(session->answer);
			session->answer = result;
			continue;
		}
		op->ended = nmoves;
		session->state = session->next < session->nops ? STATE_READY : STATE_DONE;
		take_answer(session, op, session->answer);
		session->answer = NULL;
		return;
	}
}

static Session *
session_of(const char *pid)
{
	for (int i = 0; i < nsessions; i++)
		if (sessions[i].pid == atoi(pid))
			return &sessions[i];
	return NULL;
}

/* Who waits for which lock? */
static void
look_for_waits(void)
{
	PGresult   *result = ask("locks", 0, NULL);

	for (int i = 0; i < PQntuples(result); i++)
	{
		Session    *session = session_of(PQgetvalue(result, i, 0));

		if (session == NULL || idle(session))
			continue;
		if (PQgetvalue(result, i, 1)[0] == 't' && atoi(PQgetvalue(result, i, 2)) == session->key)
		{
			session->state = STATE_STOPPED;
			session->point = atoi(PQgetvalue(result, i, 3));
		}
		else if (!can_deadlock || PQgetvalue(result, i, 4)[0] == 't')
			session->state = STATE_BLOCKED;
	}
	PQclear(result);
}

/*
 * Who sleeps?  The worker, if nothing is due: that is looked at first, and it
 * stops at a point behind the flag that it lowers.  Then waiters, whom nobody
 * else than the worker can wake.
 */
static void
look_for_sleepers(void)
{
	Session    *worker = &sessions[nsessions - 1];
	PGresult   *result = ask("sleepers", 0, NULL);

	for (int i = 0; i < PQntuples(result); i++)
		if (session_of(PQgetvalue(result, i, 0)) == worker && worker->state == STATE_RUNNING &&
			strcmp(PQgetvalue(result, i, 1), "off") == 0 &&
			strcmp(PQgetvalue(result, i, 2), "Extension") == 0)
			worker->state = STATE_ASLEEP;
	for (int i = 0; i < PQntuples(result); i++)
	{
		Session    *session = session_of(PQgetvalue(result, i, 0));

		if (session && session->state == STATE_RUNNING && worker->state != STATE_RUNNING &&
			session->ops[session->next - 1].kind == OP_WAIT &&
			strcmp(PQgetvalue(result, i, 2), "Extension") == 0)
			session->state = STATE_ASLEEP;
	}
	PQclear(result);
}

static void
take_notifications(void)
{
	PGnotify   *notify;

	PQconsumeInput(controller);
	while ((notify = PQnotifies(controller)) != NULL)
	{
		int64_t		position = atoll(notify->extra);

		if (position <= newest_notified)
			violate("the worker has notified of position %lld after %lld",
					(long long) position, (long long) newest_notified);
		newest_notified = position;
		PQfreemem(notify);
	}
}

/* One look at everybody; returns whether nobody runs. */
static bool
look_around(bool *waiter_sleeps)
{
	Session    *worker = sessions[nsessions - 1].key == WORKER_KEY ? &sessions[nsessions - 1] : NULL;
	bool		busy = worker != NULL;

	*waiter_sleeps = false;
	for (int i = 0; i < nsessions; i++)
	{
		if (idle(&sessions[i]))
			continue;
		sessions[i].state = STATE_RUNNING;
		if (sessions[i].conn)
			look_for_answer(&sessions[i]);
		busy |= !idle(&sessions[i]);
	}
	if (!busy)
		return true;
	look_for_waits();
	if (worker)
	{
		look_for_sleepers();
		take_notifications();
	}
	for (int i = 0; i < nsessions; i++)
	{
		if (sessions[i].state == STATE_RUNNING)
			return false;
		if (sessions[i].conn && sessions[i].state == STATE_ASLEEP)
			*waiter_sleeps = true;
	}
	return true;
}

/*
 * Until nobody runs.  A waiter who has just been woken still seems to sleep, so
 * he is looked at for a moment longer.
 */
void
settle(void)
{
	double		begun = now();
	bool		waiter_sleeps;

	while (!look_around(&waiter_sleeps) || (waiter_sleeps && now() < begun + WAKING))
	{
		if (now() > begun + PATIENCE)
			die("after %d moves of schedule %ld somebody neither ends nor waits", nmoves, serial);
		pause_a_little();
	}
}

static int
count_state(State state)
{
	int			n = 0;

	for (int i = 0; i < nsessions; i++)
		n += sessions[i].conn && sessions[i].state == state;
	return n;
}

/* Nobody can be let go: until somebody leaves that state by himself. */
bool
await_change(State state)
{
	double		begun = now();
	int			before = count_state(state);

	while (count_state(state) == before)
	{
		if (now() > begun + STUCK)
			return false;
		pause_a_little();
		settle();
	}
	return true;
}

/* Ends a wait for what does not come. */
void
cancel(Session *session)
{
	char		error[256];
	PGcancel   *cancel = PQgetCancel(session->conn);

	if (!PQcancel(cancel, error, sizeof(error)))
		die("%s", error);
	PQfreeCancel(cancel);
	while (!idle(session))
	{
		pause_a_little();
		settle();
	}
}
