/*
 * batch.c
 *	  Writes events, some hundreds a call, for some seconds: by the statement in
 *	  a file, or where that is a COPY, by COPY BINARY.  Prints events per second,
 *	  and how many events it has written altogether.
 *
 *	  batch FILE ROUND SECONDS EVENTS
 *
 * The connection comes from the environment, the events' data from $DATA.
 * Each call writes one new stream in a transaction of its own, over one warm
 * connection.  The statement is prepared, with the parameters stream, types and
 * data, whose arrays are sent in binary; COPY gets no version or position from
 * the server, so it sends the versions, and ids that rise as UUIDv7 do.  What
 * the client sends is laid out before the clock starts, except for what changes
 * from call to call.
 */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TYPE			"OrderPlaced"
#define STREAM_LENGTH	17		/* batch-%02d-%08d */
#define WARM_UP			30		/* calls, at most */

#define TEXTOID			25
#define JSONBOID		3802
#define TEXTARRAYOID	1009
#define JSONBARRAYOID	3807

typedef struct Buffer
{
	char	   *data;
	int			len;
} Buffer;

static PGconn *conn;
static const char *json;
static char statement[2000];
static int	nevents;

static void
die(const char *what)
{
	fprintf(stderr, "%s: %s", what, PQerrorMessage(conn));
	exit(1);
}

static void
put(Buffer *buffer, const void *bytes, int len)
{
	memcpy(buffer->data + buffer->len, bytes, len);
	buffer->len += len;
}

static void
put16(Buffer *buffer, uint16_t value)
{
	value = htons(value);
	put(buffer, &value, 2);
}

static void
put32(Buffer *buffer, uint32_t value)
{
	value = htonl(value);
	put(buffer, &value, 4);
}

static void
put64(Buffer *buffer, uint64_t value)
{
	put32(buffer, value >> 32);
	put32(buffer, value);
}

static void
put_jsonb(Buffer *buffer)
{
	put32(buffer, strlen(json) + 1);
	put(buffer, "\1", 1);		/* version of the format */
	put(buffer, json, strlen(json));
}

/* An array of nevents equal elements. */
static Buffer
make_array(uint32_t type)
{
	Buffer		buffer = {malloc(20 + nevents * (strlen(json) + 32)), 0};

	put32(&buffer, 1);			/* dimensions */
	put32(&buffer, 0);			/* no nulls */
	put32(&buffer, type);
	put32(&buffer, nevents);
	put32(&buffer, 1);			/* lower bound */
	for (int i = 0; i < nevents; i++)
	{
		if (type == JSONBOID)
			put_jsonb(&buffer);
		else
		{
			put32(&buffer, strlen(TYPE));
			put(&buffer, TYPE, strlen(TYPE));
		}
	}
	return buffer;
}

static void
expect(PGresult *result, ExecStatusType status, const char *what)
{
	if (PQresultStatus(result) != status)
		die(what);
	PQclear(result);
}

static void
call_statement(const char *stream)
{
	static Buffer types,
				data;
	static bool prepared = false;
	const char *values[3];
	int			lengths[3];
	const int	formats[3] = {1, 1, 1};
	const Oid	oids[3] = {TEXTOID, TEXTARRAYOID, JSONBARRAYOID};

	if (!prepared)
	{
		types = make_array(TEXTOID);
		data = make_array(JSONBOID);
		expect(PQprepare(conn, "append", statement, 3, oids), PGRES_COMMAND_OK, "PREPARE");
		prepared = true;
	}
	values[0] = stream;
	lengths[0] = STREAM_LENGTH;
	values[1] = types.data;
	lengths[1] = types.len;
	values[2] = data.data;
	lengths[2] = data.len;
	expect(PQexecPrepared(conn, "append", 3, values, lengths, formats, 1),
		   PGRES_TUPLES_OK, "append");
}

static void
copy(const char *stream, uint64_t round, uint64_t call)
{
	static Buffer rows;
	static int	row_length = 0;

	if (row_length == 0)
	{
		rows.data = malloc(64 + nevents * (strlen(json) + 128));
		put(&rows, "PGCOPY\n\377\r\n\0", 11);
		put32(&rows, 0);		/* flags */
		put32(&rows, 0);		/* header extension */
		for (int i = 0; i < nevents; i++)
		{
			int			start = rows.len;

			put16(&rows, 5);	/* columns */
			put32(&rows, STREAM_LENGTH);
			put(&rows, stream, STREAM_LENGTH);
			put32(&rows, 8);
			put64(&rows, i + 1);
			put32(&rows, 16);
			put64(&rows, 0);
			put64(&rows, 0);
			put32(&rows, strlen(TYPE));
			put(&rows, TYPE, strlen(TYPE));
			put_jsonb(&rows);
			row_length = rows.len - start;
		}
		put16(&rows, 0xFFFF);
	}
	for (int i = 0; i < nevents; i++)
	{
		char	   *row = rows.data + 19 + i * row_length;
		Buffer		id = {row + 2 + 4 + STREAM_LENGTH + 4 + 8 + 4, 0};

		memcpy(row + 6, stream, STREAM_LENGTH);
		put64(&id, round);
		put64(&id, call * nevents + i);
	}
	expect(PQexec(conn, statement), PGRES_COPY_IN, "COPY");
	if (PQputCopyData(conn, rows.data, rows.len) != 1 || PQputCopyEnd(conn, NULL) != 1)
		die("COPY");
	expect(PQgetResult(conn), PGRES_COMMAND_OK, "COPY");
	if (PQgetResult(conn) != NULL)
		die("COPY");
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void
read_statement(const char *name)
{
	FILE	   *file = fopen(name, "r");

	if (file == NULL || fread(statement, 1, sizeof(statement) - 1, file) == 0)
	{
		perror(name);
		exit(1);
	}
	fclose(file);
}

int
main(int argc, char **argv)
{
	int			round;
	double		seconds;
	double		began;
	double		start = 0;
	double		end;
	int			call = 0;
	int			warm_up = 0;	/* calls, when it has ended */

	json = getenv("DATA");
	if (argc != 5 || json == NULL)
	{
		fprintf(stderr, "usage: DATA=json batch FILE ROUND SECONDS EVENTS\n");
		return 2;
	}
	read_statement(argv[1]);
	round = atoi(argv[2]);
	seconds = atof(argv[3]);
	nevents = atoi(argv[4]);
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		die("connect");
	began = now();
	do
	{
		char		stream[64];

		snprintf(stream, sizeof(stream), "batch-%02d-%08d", round % 100, call);
		if (strncmp(statement, "COPY", 4) == 0)
			copy(stream, round, call);
		else
			call_statement(stream);
		call++;
		end = now();
		if (warm_up == 0 && (call == WARM_UP || end - began > seconds / 4))
		{
			warm_up = call;
			start = end;
		}
	} while (warm_up == 0 || call == warm_up || end - start < seconds);
	printf("%.0f %lld\n", (call - warm_up) * (double) nevents / (end - start), (long long) call * nevents);
	PQfinish(conn);
	return 0;
}
