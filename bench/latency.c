/*
 * latency.c
 *	  How soon those who wait for events know of them.
 *
 *	  latency notify|wait SECONDS GAP
 *	  latency watch LISTENERS WAITERS
 *
 * notify, wait: appends an event every GAP milliseconds, and prints for each
 * how many milliseconds after its commit a listener had the notification that
 * covers it, or wait_for_events() had returned to a waiter; 0 if he knew before
 * the appender.
 *
 * watch: prints "ready" when all listen and wait.  Reads a position from the
 * standard input, sooner or later, and ends when all know of it.  Prints how
 * many notifications a listener had, and how often a waiter was answered.
 *
 * The connections come from the environment, the events' data from $DATA.
 * Nobody waits for more than TOO_LATE after a commit: that is an error.
 */
#define _GNU_SOURCE				/* ppoll */
#include <libpq-fe.h>
#include <math.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WARM_UP		10			/* appends */
#define TOO_LATE	20.0		/* seconds */
#define STREAMS		100

/* Who listens, or waits in a loop. */
typedef struct Watcher
{
	PGconn	   *conn;
	bool		waits;
	int64_t		known;			/* the newest checkpoint that he was told */
	int64_t		told;			/* how often */
} Watcher;

typedef struct Append
{
	int64_t		position;
	double		committed;
} Append;

static void
die(const char *what, PGconn *conn)
{
	fprintf(stderr, "latency: %s%s%s", what, conn ? ": " : "\n", conn ? PQerrorMessage(conn) : "");
	exit(1);
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static PGconn *
open_connection(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		die("connect", conn);
	return conn;
}

/* Runs a statement; returns its first value, if it has one. */
static char *
query(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);
	char	   *value = NULL;

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		value = strdup(PQgetvalue(result, 0, 0));
	else if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(sql, conn);
	PQclear(result);
	return value;
}

static void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *result = PQprepare(conn, name, sql, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(sql, conn);
	PQclear(result);
}

static void
wait_again(Watcher *watcher)
{
	char		after[32];
	const char *values[1] = {after};

	snprintf(after, sizeof(after), "%lld", (long long) watcher->known);
	if (!PQsendQueryPrepared(watcher->conn, "wait", 1, values, NULL, NULL, 0))
		die("wait_for_events", watcher->conn);
}

static void
open_watcher(Watcher *watcher, bool waits)
{
	PGconn	   *conn = open_connection();

	if (waits)
		prepare(conn, "wait", "SELECT event_store.wait_for_events('ev', $1, '60 s')");
	else
		query(conn, query(conn, "SELECT format('LISTEN %I', event_store.channel('ev'))"));
	*watcher = (Watcher) {.conn = conn, .waits = waits};
	watcher->known = atoll(query(conn, "SELECT event_store.wait_for_events('ev', 0, '0 s')"));
	if (waits)
		wait_again(watcher);
}

static void
close_watcher(Watcher *watcher)
{
	if (watcher->waits)
	{
		char		error[256];
		PGresult   *result;

		if (!PQcancel(PQgetCancel(watcher->conn), error, sizeof(error)))
			die(error, NULL);
		while ((result = PQgetResult(watcher->conn)) != NULL)
			PQclear(result);
	}
	else
		query(watcher->conn, "UNLISTEN *"); /* or the server may find him gone */
	PQfinish(watcher->conn);
}

static void
tell(Watcher *watcher, const char *checkpoint)
{
	int64_t		position = atoll(checkpoint);

	watcher->told++;
	if (position > watcher->known)
		watcher->known = position;
}

static void
receive(Watcher *watcher)
{
	PGconn	   *conn = watcher->conn;
	PGnotify   *notification;

	if (!PQconsumeInput(conn))
		die("receive", conn);
	while ((notification = PQnotifies(conn)) != NULL)
	{
		tell(watcher, notification->extra);
		PQfreemem(notification);
	}
	while (watcher->waits && !PQisBusy(conn))
	{
		PGresult   *result = PQgetResult(conn);

		if (result == NULL)
			wait_again(watcher);
		else if (PQresultStatus(result) == PGRES_TUPLES_OK)
			tell(watcher, PQgetvalue(result, 0, 0));
		else
			die("wait_for_events", conn);
		PQclear(result);
	}
}

static void
send_append(PGconn *conn, int n)
{
	char		stream[32];
	const char *values[2] = {stream, getenv("DATA")};

	snprintf(stream, sizeof(stream), "latency-%d", n % STREAMS);
	if (!PQsendQueryPrepared(conn, "append", 2, values, NULL, NULL, 0))
		die("append", conn);
}

/* Takes what has come of the answer; true if that is all. */
static bool
receive_append(PGconn *conn, Append *append)
{
	if (!PQconsumeInput(conn))
		die("append", conn);
	while (!PQisBusy(conn))
	{
		PGresult   *result = PQgetResult(conn);

		if (result == NULL)
			return true;
		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			die("append", conn);
		append->position = atoll(PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	return false;
}

static void
measure(bool waits, double seconds, double gap)
{
	PGconn	   *conn = open_connection();
	Append	   *appends = calloc(WARM_UP + seconds / gap + 2, sizeof(Append));
	Watcher		watcher;
	int			sent = 0;
	int			committed = 0;
	int			known = 0;
	double		next = now();
	double		end = INFINITY;
	struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};

	prepare(conn, "append", "SELECT last_position FROM event_store.append('ev', $1, 'OrderPlaced', $2)");
	open_watcher(&watcher, waits);
	fds[0].fd = PQsocket(conn);
	fds[1].fd = PQsocket(watcher.conn);
	for (;;)
	{
		double		time = now();
		double		timeout = TOO_LATE;
		struct timespec spec;

		if (sent == committed && time >= next && time < end)
		{
			if (sent == WARM_UP)
				end = time + seconds;
			send_append(conn, sent++);
			next = fmax(next + gap, time);
		}
		else if (sent == committed && time < end)
			timeout = next - time;
		else if (known == sent)
			break;
		spec.tv_sec = timeout;
		spec.tv_nsec = (timeout - spec.tv_sec) * 1e9;
		if (ppoll(fds, 2, &spec, NULL) < 0)
			die("cannot poll", NULL);

		time = now();
		if (fds[0].revents && receive_append(conn, &appends[committed]))
			appends[committed++].committed = time;
		if (fds[1].revents)
			receive(&watcher);
		for (; known < committed && appends[known].position <= watcher.known; known++)
			if (known >= WARM_UP)
				printf("%.3f\n", (time - appends[known].committed) * 1000);
		if (known < committed && appends[known].committed + TOO_LATE < time)
			die("an event has not been announced", NULL);
	}
	close_watcher(&watcher);
	PQfinish(conn);
}

static bool
all_know(Watcher *watchers, int count, int64_t position)
{
	for (int i = 0; i < count; i++)
		if (watchers[i].known < position)
			return false;
	return true;
}

static void
watch(int listeners, int waiters)
{
	int			count = listeners + waiters;
	Watcher    *watchers = calloc(count + 1, sizeof(Watcher));
	struct pollfd *fds = calloc(count + 1, sizeof(struct pollfd));
	int64_t		until = INT64_MAX;
	double		asked = INFINITY;

	for (int i = 0; i < count; i++)
	{
		open_watcher(&watchers[i], i >= listeners);
		fds[i] = (struct pollfd) {.fd = PQsocket(watchers[i].conn), .events = POLLIN};
	}
	fds[count] = (struct pollfd) {.fd = 0, .events = POLLIN};
	puts("ready");
	fflush(stdout);
	while (!all_know(watchers, count, until))
	{
		if (poll(fds, count + 1, TOO_LATE * 1000) < 0)
			die("cannot poll", NULL);
		for (int i = 0; i < count; i++)
			if (fds[i].revents)
				receive(&watchers[i]);
		if (fds[count].revents)
		{
			char		line[32];

			if (fgets(line, sizeof(line), stdin) == NULL)
				die("stopped before the end", NULL);
			until = atoll(line);
			asked = now();
			fds[count].fd = -1;
		}
		if (asked + TOO_LATE < now())
			die("an event has not been announced", NULL);
	}
	printf("%lld %lld\n", (long long) (listeners ? watchers[0].told : 0),
		   (long long) (waiters ? watchers[listeners].told : 0));
	for (int i = 0; i < count; i++)
		close_watcher(&watchers[i]);
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "watch") == 0)
		watch(atoi(argv[2]), atoi(argv[3]));
	else if (argc == 4 && getenv("DATA") &&
			 (strcmp(argv[1], "notify") == 0 || strcmp(argv[1], "wait") == 0))
		measure(strcmp(argv[1], "wait") == 0, atof(argv[2]), atof(argv[3]) / 1000);
	else
	{
		fprintf(stderr, "usage: [DATA=json] latency notify|wait SECONDS GAP | watch LISTENERS WAITERS\n");
		return 2;
	}
	return 0;
}
