/*
 * connection.c
 *	  Connections that break, and small things.
 */
#define _GNU_SOURCE
#include "stress.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CUT_ONE_IN	100			/* queries of those that may be cut */

Target		primary;
Target		standby;

Time
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * SECOND + time.tv_nsec;
}

void
rest(Time duration)
{
	struct timespec time = {duration / SECOND, duration % SECOND};

	nanosleep(&time, NULL);
}

int
dice(Client *client, int sides)
{
	client->random ^= client->random << 13;
	client->random ^= client->random >> 7;
	client->random ^= client->random << 17;
	return client->random % (uint64_t) sides;
}

void
add(Buffer *buffer, const char *format,...)
{
	va_list		args;
	int			length;

	for (;;)
	{
		size_t		room = buffer->size - buffer->length;

		va_start(args, format);
		length = vsnprintf(buffer->text ? buffer->text + buffer->length : NULL, room, format, args);
		va_end(args);
		if ((size_t) length < room)
			break;
		buffer->size = buffer->size * 2 + length + 1000;
		buffer->text = realloc(buffer->text, buffer->size);
	}
	buffer->length += length;
}

void
clear(Buffer *buffer)
{
	free(buffer->text);
	*buffer = (Buffer) {0};
}

static void
say_nothing(void *arg, const char *message)
{
	(void) arg;
	(void) message;
}

/* A connection to a server that may be down just now; else NULL. */
PGconn *
try_connect(Target *target, const char *name)
{
	const char *keywords[] = {"host", "dbname", "application_name", "connect_timeout", NULL};
	const char *values[] = {target->host, target->database, name, "10", NULL};
	PGconn	   *conn = PQconnectdbParams(keywords, values, 0);

	PQsetNoticeProcessor(conn, say_nothing, NULL);
	if (PQstatus(conn) == CONNECTION_OK)
		return conn;
	PQfinish(conn);
	return NULL;
}

void
disconnect(Client *client)
{
	PQclear(client->result);
	client->result = NULL;
	PQfinish(client->conn);
	client->conn = NULL;
}

/* Connects, if need be, as soon as the server lets us.  False: the round is over. */
bool
connected_to(Client *client, Target *target)
{
	char		name[64];

	snprintf(name, sizeof(name), "%s %s %d", client->kind->reads ? "reader" : "writer", client->kind->name, client->number);
	while (client->conn == NULL)
	{
		if (abandoned || (draining && !client->kind->reads))
			return false;
		client->conn = try_connect(target, name);
		client->fresh = true;
		if (client->conn == NULL)
			rest(20 * MS);
	}
	return true;
}

bool
connected(Client *client)
{
	return connected_to(client, &primary);
}

static void
note_error(Client *client, PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);

	snprintf(client->sqlstate, sizeof(client->sqlstate), "%s", sqlstate ? sqlstate : "");
	snprintf(client->message, sizeof(client->message), "%s", message ? message : PQresultErrorMessage(result));
	snprintf(client->detail, sizeof(client->detail), "%s", detail ? detail : "");
}

/* The client goes away without a word: the server may have done it, or may still. */
static Answer
cut(Client *client)
{
	count_cuts++;
	shutdown(PQsocket(client->conn), SHUT_RDWR);
	disconnect(client);
	return LOST;
}

/* Takes what there is; the last result with rows stays in client->result. */
static Answer
finish_query(Client *client)
{
	PGresult   *result;
	bool		refused = false;

	while ((result = PQgetResult(client->conn)) != NULL)
	{
		ExecStatusType status = PQresultStatus(result);

		if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT)
		{
			PQclear(client->result);
			client->result = result;
			return OK;
		}
		if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		{
			PQclear(client->result);
			client->result = result;
			continue;
		}
		refused = true;
		note_error(client, result);
		PQclear(result);
		if (PQstatus(client->conn) != CONNECTION_OK)
			break;
	}
	/* What has no SQLSTATE does not come from the server. */
	if (PQstatus(client->conn) != CONNECTION_OK || (refused && client->sqlstate[0] == '\0'))
	{
		disconnect(client);
		return LOST;
	}
	return refused ? REFUSED : OK;
}

/*
 * What comes back when the connection breaks in the middle proves nothing: it
 * is LOST, whatever the server may have said before.
 */
Answer
query(Client *client, const char *sql)
{
	bool		may_be_cut = client->may_be_cut && fault_is_on("cut");

	client->may_be_cut = false;
	client->doing = sql;
	PQclear(client->result);
	client->result = NULL;
	if (!PQsendQuery(client->conn, sql))
	{
		disconnect(client);
		return LOST;
	}
	if (may_be_cut && dice(client, CUT_ONE_IN) == 0)
		return cut(client);
	return finish_query(client);
}

/* Sends rows after a COPY ... FROM STDIN. */
Answer
copy(Client *client, const char *sql, const char *rows)
{
	Answer		answer = query(client, sql);

	if (answer != OK)
		return answer;
	if (PQputCopyData(client->conn, rows, strlen(rows)) < 0 || PQputCopyEnd(client->conn, NULL) < 0)
	{
		disconnect(client);
		return LOST;
	}
	if (fault_is_on("cut") && dice(client, CUT_ONE_IN) == 0)
		return cut(client);
	return finish_query(client);
}

const char *
value(Client *client, int row, int column)
{
	return PQgetvalue(client->result, row, column);
}

int64_t
number(Client *client, int row, int column)
{
	return atoll(value(client, row, column));
}

bool
sqlstate_in(const char *sqlstate, const char *list)
{
	return list != NULL && sqlstate[0] != '\0' && strstr(list, sqlstate) != NULL;
}

/* An error must be one that this kind of client, or a fault, brings about. */
void
check_refusal(Client *client, const char *also)
{
	count_out_of_locks += strcmp(client->sqlstate, "53200") == 0;
	count_cancelled += strcmp(client->sqlstate, "57014") == 0;
	count_deadlocks += strcmp(client->sqlstate, "40P01") == 0;
	if (!sqlstate_in(client->sqlstate, client->kind->may_fail) &&
		!sqlstate_in(client->sqlstate, also) &&
		!sqlstate_in(client->sqlstate, fault_errors()))
		violation(ERRORS, "nothing explains this error of client %d (%s): %s %s %s", client->number, client->kind->name,
				  client->sqlstate, client->message, client->detail);
}

/* For the checks, when nobody disturbs them. */
PGresult *
must(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "stress: %s\n%s", sql, PQerrorMessage(conn));
		exit(2);
	}
	return result;
}
