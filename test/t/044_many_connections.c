/*
 * 044_many_connections.c
 *	  Many connections at once, for 044_many_connections.pl.
 *
 *		044_many_connections CONNINFO COUNT
 *
 * Opens them; each appends to a stream of its own, and every tenth listens.
 * Prints "connected", and waits for a line.  Then every fifth waits for events
 * while all others append at one moment; everybody gets an answer, who listens a
 * notification of the last event, and each connection counts the whole feed.  Prints
 * "done"; whatever is not as it should be ends it with exit status 1.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define LISTENS(i)	((i) % 10 == 0)
#define WAITS(i)	((i) % 5 == 1)
#define PATIENCE	120000		/* ms */

static PGconn **connections;
static int	count;

static void
fail(const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* The first column of the only row. */
static long
value_of(PGconn *connection, PGresult *result)
{
	long		value = 0;

	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
		value = atol(PQgetvalue(result, 0, 0));
	else if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail("%s", PQerrorMessage(connection));
	PQclear(result);
	return value;
}

static long
query(PGconn *connection, const char *sql)
{
	return value_of(connection, PQexec(connection, sql));
}

static void
send(PGconn *connection, const char *sql)
{
	if (!PQsendQuery(connection, sql))
		fail("%s", PQerrorMessage(connection));
}

static long
answer(PGconn *connection)
{
	long		value = value_of(connection, PQgetResult(connection));
	PGresult   *more = PQgetResult(connection);

	if (more)
		fail("more than one result");
	return value;
}

static const char *
append_sql(int i)
{
	static char sql[200];

	snprintf(sql, sizeof(sql), "SELECT last_position FROM event_store.append('ev', 'many-%d', 'T', '{\"connection\": %d}')", i, i);
	return sql;
}

/* Until it is told of that position. */
static void
await_notification(int i, long position)
{
	PGnotify   *notification;
	long		last = 0;

	for (;;)
	{
		struct pollfd fd = {.fd = PQsocket(connections[i]), .events = POLLIN};

		PQconsumeInput(connections[i]);
		while ((notification = PQnotifies(connections[i])) != NULL)
		{
			last = atol(notification->extra);
			PQfreemem(notification);
		}
		if (last >= position)
			return;
		if (poll(&fd, 1, PATIENCE) <= 0)
			fail("connection %d has been told of position %ld, not of %ld", i, last, position);
	}
}

int
main(int argc, char **argv)
{
	struct rlimit files;
	char		line[10];
	char		sql[200];
	long		before = 0;
	long		last = 0;
	long		all;

	if (argc != 3)
		fail("usage: %s CONNINFO COUNT", argv[0]);
	count = atoi(argv[2]);
	connections = calloc(count, sizeof(PGconn *));
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 0; i < count; i++)
	{
		connections[i] = PQconnectdb(argv[1]);
		if (PQstatus(connections[i]) != CONNECTION_OK)
			fail("connection %d: %s", i, PQerrorMessage(connections[i]));
		if (LISTENS(i))
		{
			PGresult   *result = PQexec(connections[i], "SELECT event_store.channel('ev')");

			snprintf(sql, sizeof(sql), "LISTEN %s", PQgetvalue(result, 0, 0));
			PQclear(result);
			(void) query(connections[i], sql);
		}
		(void) query(connections[i], append_sql(i));
	}
	puts("connected");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		fail("no line");

	before = query(connections[0], "SELECT event_store.last_position('ev')");
	snprintf(sql, sizeof(sql), "SELECT event_store.wait_for_events('ev', after => %ld, timeout => '60 s')", before);
	for (int i = 0; i < count; i++)
		if (WAITS(i))
			send(connections[i], sql);
	for (int i = 0; i < count; i++)
		if (!WAITS(i))
			send(connections[i], append_sql(i));
	for (int i = 0; i < count; i++)
	{
		long		position = answer(connections[i]);

		if (position <= before)
			fail("connection %d has got position %ld, not one above %ld", i, position, before);
		if (position > last)
			last = position;
	}
	for (int i = 0; i < count; i++)
		if (LISTENS(i))
			await_notification(i, last);

	all = query(connections[0], "SELECT count(*) FROM ev");
	for (int i = 0; i < count; i++)
		send(connections[i], "SELECT count(*) FROM event_store.read_all('ev', max_count => 1000000)");
	for (int i = 0; i < count; i++)
	{
		long		read = answer(connections[i]);

		if (read != all)
			fail("connection %d has read %ld of %ld events", i, read, all);
	}
	for (int i = 0; i < count; i++)
		PQfinish(connections[i]);
	puts("done");
	return 0;
}
