/*
 * consumer.c
 *	  A consumer of an event table's feed, in C with libpq, made to be copied.
 *	  It keeps a read model up to date: how many events of each type there are.
 *
 *	consumer [--once] EVENT_TABLE
 *
 * EVENT_TABLE is a name as in SQL.  The environment says where the database is
 * (PGHOST, PGDATABASE and so on); tables.sql makes there what the consumer
 * writes.  It runs until SIGTERM or SIGINT, with --once until it has caught
 * up.  To build it:
 *
 *	cc -o consumer consumer.c -I"$(pg_config --includedir)" -L"$(pg_config --libdir)" -lpq
 *
 * No event is lost and none is counted twice, because
 *
 *	  the checkpoint is a row of the same database, and moves in the transaction
 *	  that writes the read model.  Whoever dies, and whenever, both have happened
 *	  or neither has.  Where the answer to a COMMIT was lost, the row tells; so
 *	  it is read anew for each batch, and nothing is kept here;
 *
 *	  the checkpoint moves only from where the batch began.  Of two consumers
 *	  that run by mistake, one waits for the other, and then begins anew.
 *
 * It listens before it catches up, so that whatever comes too late for that
 * notifies it.  A notification is a hint, which can get lost: so it looks once
 * a second in any case.  That also finds out a connection that has died without
 * a word, since each answer must come in time.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libpq-fe.h>

/* Milliseconds. */
#define POLL_INTERVAL	1000
#define ANSWER_TIMEOUT	10000
#define FIRST_BACK_OFF	100
#define LAST_BACK_OFF	5000

static volatile sig_atomic_t stopping;	/* somebody has told us to */
static bool hopeless;			/* trying again will not mend the error */
static const char *event_table;
static PGconn *conn;

static bool start(void);
static bool catch_up(void);
static bool handle(const char *type);
static bool wait_for_news(void);
static bool run(const char *sql, int count, const char *const *values, PGresult **result);
static bool answered(void);
static bool failed(const char *message);

static void
stop(int signal)
{
	(void) signal;
	stopping = true;
}

int
main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = stop};
	bool		once = argc > 1 && strcmp(argv[1], "--once") == 0;
	int			back_off = FIRST_BACK_OFF;

	event_table = argc == (once ? 3 : 2) ? argv[argc - 1] : "";
	if (event_table[0] == '\0' || event_table[0] == '-')
	{
		fprintf(stderr, "usage: consumer [--once] EVENT_TABLE\n");
		return 2;
	}
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	srand((unsigned int) getpid());

	while (!stopping && !hopeless)
	{
		bool		well = start();

		while (well && !stopping)
		{
			well = catch_up();
			if (well && once)
				stopping = true;
			if (well && !stopping)
			{
				back_off = FIRST_BACK_OFF;
				well = wait_for_news();
			}
		}
		PQfinish(conn);
		if (!stopping && !hopeless)
		{
			/* At random, lest all consumers of a server come back at once. */
			poll(NULL, 0, back_off / 2 + rand() % back_off);
			back_off = back_off * 2 < LAST_BACK_OFF ? back_off * 2 : LAST_BACK_OFF;
		}
	}
	return hopeless ? 1 : 0;
}

/* Connects and listens.  Like all that follow, it returns false after an error. */
static bool
start(void)
{
	static const char *const keywords[] = {"connect_timeout", "fallback_application_name", NULL};
	static const char *const values[] = {"10", "consumer_c", NULL};
	PGresult   *result;
	bool		well;

	conn = PQconnectdbParams(keywords, values, 0);
	if (PQstatus(conn) != CONNECTION_OK)
		return failed(PQerrorMessage(conn));

	/* Asked at every connect: a table that was restored has another channel. */
	if (!run("SELECT format('LISTEN %I', event_store.channel($1::text::regclass))", 1, &event_table, &result))
		return false;
	well = run(PQgetvalue(result, 0, 0), 0, NULL, NULL) &&
		run("INSERT INTO events_per_type_checkpoint (event_table, position)"
			" VALUES ($1, 0) ON CONFLICT DO NOTHING", 1, &event_table, NULL);
	PQclear(result);
	return well;
}

/*
 * Handles all that is new, batch by batch.  The end is where the checkpoint
 * does not move.  A batch without an event is not the end: a feed with a filter
 * moves on past what the filter does not let through.
 */
static bool
catch_up(void)
{
	while (!stopping)
	{
		PGresult   *batch,
				   *result;
		bool		moved,
					well;

		/* A row for each event, or one for a batch that has none. */
		if (!run("SELECT c.position, b.checkpoint, b.checkpoint_event_id, e.type"
				 " FROM events_per_type_checkpoint c"
				 " CROSS JOIN event_store.read_batch($1::text::regclass, after => c.position,"
				 "  after_event_id => c.event_id, max_count => 500) b"
				 " LEFT JOIN jsonb_populate_recordset(NULL::event_store.event, b.events) e ON true"
				 " WHERE c.event_table = $1 ORDER BY e.position", 1, &event_table, &batch))
			return false;
		if (PQntuples(batch) == 0)
		{
			PQclear(batch);
			return failed("the checkpoint was removed: starting from the first event\n");
		}
		if (strcmp(PQgetvalue(batch, 0, 0), PQgetvalue(batch, 0, 1)) == 0)
		{
			PQclear(batch);
			return true;
		}

		well = run("BEGIN", 0, NULL, NULL) &&
			run("UPDATE events_per_type_checkpoint SET position = $3, event_id = $4"
				" WHERE event_table = $1 AND position = $2", 4,
				(const char *[]) {event_table, PQgetvalue(batch, 0, 0), PQgetvalue(batch, 0, 1), PQgetvalue(batch, 0, 2)},
				&result);
		if (well)
		{
			moved = strcmp(PQcmdTuples(result), "1") == 0;
			PQclear(result);
			for (int i = 0; well && moved && i < PQntuples(batch); i++)
				well = PQgetisnull(batch, i, 3) || handle(PQgetvalue(batch, i, 3));
			well = well && run(moved ? "COMMIT" : "ROLLBACK", 0, NULL, NULL);
		}
		PQclear(batch);
		if (!well)
			return false;
	}
	return true;
}

/*
 * What is done with an event: exactly once, being part of the transaction.
 * What cannot be, a mail for example, can happen twice; there the event's id
 * must tell the second from the first.
 */
static bool
handle(const char *type)
{
	return run("INSERT INTO events_per_type AS m VALUES ($1, $2, 1)"
			   " ON CONFLICT (event_table, type) DO UPDATE SET events = m.events + 1", 2,
			   (const char *[]) {event_table, type}, NULL);
}

/* Waits for a notification, but not longer than the poll interval. */
static bool
wait_for_news(void)
{
	PGnotify   *notification = PQnotifies(conn);

	/* One that came along with an answer does not show at the socket. */
	if (notification == NULL)
	{
		poll(&(struct pollfd) {.fd = PQsocket(conn), .events = POLLIN}, 1, POLL_INTERVAL);
		if (!PQconsumeInput(conn))
			return failed(PQerrorMessage(conn));
		notification = PQnotifies(conn);
	}
	for (; notification != NULL; notification = PQnotifies(conn))
		PQfreemem(notification);
	return true;
}

/*
 * Runs a statement; gives its result to a caller who wants it.  PQexecParams
 * would wait for ever for a server that does not answer.
 */
static bool
run(const char *sql, int count, const char *const *values, PGresult **result)
{
	/* Classes of errors that do not pass by themselves. */
	static const char *const lasting[] = {"SE", "0A", "22", "3F", "42"};
	PGresult   *last = NULL,
			   *next;
	const char *sqlstate;
	bool		well;

	if (!PQsendQueryParams(conn, sql, count, NULL, values, NULL, NULL, 0))
		return failed(PQerrorMessage(conn));
	while (answered() && (next = PQgetResult(conn)) != NULL)
	{
		PQclear(last);
		last = next;
	}
	if (last == NULL)
		return false;

	well = PQresultStatus(last) == PGRES_COMMAND_OK || PQresultStatus(last) == PGRES_TUPLES_OK;
	if (!well)
	{
		/*
		 * SE009 says that the event table is not, or not any more, the one
		 * that the read model was made of.  That has to be made anew, by
		 * somebody who knows what happened; to go on would be to guess.
		 */
		sqlstate = PQresultErrorField(last, PG_DIAG_SQLSTATE);
		for (size_t i = 0; sqlstate != NULL && i < sizeof(lasting) / sizeof(lasting[0]); i++)
			hopeless |= strncmp(sqlstate, lasting[i], 2) == 0;
		failed(PQresultErrorMessage(last));
	}
	if (well && result != NULL)
		*result = last;
	else
		PQclear(last);
	return well;
}

/* Waits until PQgetResult has something to say; not for a dead server. */
static bool
answered(void)
{
	while (PQisBusy(conn))
	{
		int			ready = poll(&(struct pollfd) {.fd = PQsocket(conn), .events = POLLIN}, 1, ANSWER_TIMEOUT);

		if (ready == 0)
			return failed("the server does not answer\n");
		if (ready > 0 && !PQconsumeInput(conn))
			return failed(PQerrorMessage(conn));
	}
	return true;
}

static bool
failed(const char *message)
{
	fprintf(stderr, "consumer: %s", message);
	return false;
}
