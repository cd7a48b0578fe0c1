/*
 * readers.c
 *	  Clients that read feeds and streams.
 *
 * A reader keeps what it has got, and its checkpoint, from round to round and
 * through every fault.  In the end that must be the rows up to there, no more and
 * no less, in their order.
 */
#include "stress.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define MAX_READERS		64
#define POLL_ANYWAY		(3 * SECOND)	/* listeners, where servers crash */

static void follow_by_polling(Client *client);
static void follow_by_listening(Client *client);
static void follow_by_waiting(Client *client);
static void follow_category(Client *client);
static void follow_filtered(Client *client);
static void follow_all(Client *client);
static void follow_standby(Client *client);
static void read_streams(Client *client);

/* After the crash of a standby it may be behind for a moment: SE009, 0A000. */
#define ON_STANDBY	"SE009 0A000 40001 40P01 25006 55000"

const Kind	reader_kinds[] = {
	{"poll", true, follow_by_polling, NULL},
	{"listen", true, follow_by_listening, NULL},
	{"wait", true, follow_by_waiting, NULL},
	{"category", true, follow_category, NULL},
	{"filter", true, follow_filtered, NULL},
	{"all", true, follow_all, NULL},
	{"standby", true, follow_standby, ON_STANDBY},
	{"stream", false, read_streams, NULL},
	{NULL}
};

static Reader *all_readers[MAX_READERS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static StreamRead *stream_list;
static int64_t nstream_reads;
static int64_t stream_reads_size;

Reader *
readers(int i)
{
	return i < MAX_READERS ? all_readers[i] : NULL;
}

/* The one of that name, old or new. */
Reader *
reader_of(Client *client, int category)
{
	Reader	   *reader = NULL;
	char		name[32];
	int			i;

	snprintf(name, sizeof(name), "%s %d", client->kind->name, client->number);
	pthread_mutex_lock(&mutex);
	for (i = 0; i < MAX_READERS && all_readers[i]; i++)
		if (strcmp(all_readers[i]->name, name) == 0)
			reader = all_readers[i];
	if (reader == NULL)
	{
		if (i == MAX_READERS)
			abort();
		reader = calloc(1, sizeof(Reader));
		strcpy(reader->name, name);
		reader->category = category;
		all_readers[i] = reader;
	}
	pthread_mutex_unlock(&mutex);
	client->reader = reader;
	return reader;
}

StreamRead *
stream_reads(int64_t *count)
{
	*count = nstream_reads;
	return stream_list;
}

static Promise *
promise(Reader *reader, int64_t position, int64_t above, int64_t rows, const char *id)
{
	Promise    *p;

	if (reader->npromises == reader->promises_size)
	{
		reader->promises_size = reader->promises_size * 2 + 1000;
		reader->promises = realloc(reader->promises, sizeof(Promise) * reader->promises_size);
	}
	p = &reader->promises[reader->npromises++];
	*p = (Promise) {.position = position, .above = above, .rows = rows};
	snprintf(p->event_id, sizeof(p->event_id), "%s", id);
	return p;
}

static void
take(Reader *reader, int64_t position, int64_t serial, int i)
{
	if (reader->count > 0 && position <= reader->seen[reader->count - 1].position)
		violation(READERS, "reader %s got position %lld after %lld", reader->name, (long long) position,
				  (long long) reader->seen[reader->count - 1].position);
	if (reader->count == reader->size)
	{
		reader->size = reader->size * 2 + 10000;
		reader->seen = realloc(reader->seen, sizeof(Seen) * reader->size);
	}
	reader->seen[reader->count++] = (Seen) {position, serial, i};
}

static void
move_on(Reader *reader, int64_t checkpoint, const char *id)
{
	if (checkpoint < reader->checkpoint)
		violation(CHECKPOINTS, "the checkpoint of reader %s went back from %lld to %lld", reader->name,
				  (long long) reader->checkpoint, (long long) checkpoint);
	if (checkpoint > reader->checkpoint)
		(void) promise(reader, checkpoint, 0, -1, id);
	reader->checkpoint = checkpoint;
	strcpy(reader->event_id, id);
	reader->progress = checkpoint;
}

static void
add_after(Buffer *sql, Reader *reader)
{
	add(sql, "after => %lld", (long long) reader->checkpoint);
	if (reader->event_id[0])
		add(sql, ", after_event_id => '%s'", reader->event_id);
}

/* One read_batch().  True if it brought something. */
static bool
read_batch(Client *client)
{
	Reader	   *reader = client->reader;
	Buffer		sql = {0};
	Answer		answer;
	bool		more = false;

	add(&sql, "SELECT b.checkpoint, b.checkpoint_event_id, e -> 'position', e -> 'data' -> 'op', e -> 'data' -> 'i' FROM event_store.read_batch('ev', max_count => %d, ",
		1 + dice(client, dice(client, 2) ? 20 : 1000));
	add_after(&sql, reader);
	if (reader->category >= 0)
		add(&sql, ", categories => '{%c}'", 'a' + reader->category);
	add(&sql, ") b LEFT JOIN LATERAL jsonb_array_elements(b.events) WITH ORDINALITY AS x (e, n) ON true ORDER BY x.n");
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == REFUSED)
		check_refusal(client, NULL);
	if (answer != OK)
		return false;
	reader->reads++;
	for (int row = 0; row < PQntuples(client->result); row++)
		if (!PQgetisnull(client->result, row, 2))
		{
			take(reader, number(client, row, 2), number(client, row, 3), number(client, row, 4));
			more = true;
		}
	more = more || number(client, 0, 0) > reader->checkpoint;
	move_on(reader, number(client, 0, 0), value(client, 0, 1));
	return more;
}

/* By read_all() or read_category(): the last row is the checkpoint. */
static bool
read_rows(Client *client)
{
	Reader	   *reader = client->reader;
	Buffer		sql = {0};
	Answer		answer;
	int			rows;

	if (reader->category >= 0)
		add(&sql, "SELECT position, data -> 'op', data -> 'i', event_id FROM event_store.read_category('ev', '%c', ", 'a' + reader->category);
	else
		add(&sql, "SELECT position, data -> 'op', data -> 'i', event_id FROM event_store.read_all('ev', ");
	add_after(&sql, reader);
	/* The event before is of another category, where there is one. */
	add(&sql, ", max_count => %d)", 1 + dice(client, 500));
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == REFUSED)
		check_refusal(client, NULL);
	if (answer != OK)
		return false;
	reader->reads++;
	rows = PQntuples(client->result);
	for (int row = 0; row < rows; row++)
		take(reader, number(client, row, 0), number(client, row, 1), number(client, row, 2));
	if (rows > 0)
		move_on(reader, number(client, rows - 1, 0), value(client, rows - 1, 3));
	return rows > 0;
}

/* Has the reader what there is, after the last writer has gone? */
static bool
at_end(Reader *reader)
{
	return abandoned || (final >= 0 && reader->checkpoint >= final);
}

static void
follow_by_polling(Client *client)
{
	Reader	   *reader = reader_of(client, -1);

	if (!at_end(reader) && connected(client) && !read_batch(client))
		rest(dice(client, 3) * MS);
}

static void
follow_filtered(Client *client)
{
	Reader	   *reader = reader_of(client, client->number % CATEGORIES);

	if (!at_end(reader) && connected(client) && !read_batch(client))
		rest(dice(client, 10) * MS);
}

static void
follow_all(Client *client)
{
	Reader	   *reader = reader_of(client, -1);

	if (!at_end(reader) && connected(client) && !read_rows(client))
		rest(dice(client, 2) * MS);
}

/* Its checkpoint need not come to the end: the last event may be of another one. */
static void
follow_category(Client *client)
{
	Reader	   *reader = reader_of(client, client->number % CATEGORIES);
	int64_t		end = final;

	if (reader->progress >= end && end >= 0)
		return;
	if (connected(client))
	{
		bool		more = read_rows(client);

		if (!more && end >= 0 && client->conn && client->result && PQresultStatus(client->result) == PGRES_TUPLES_OK)
			reader->progress = end;
		else if (!more)
			rest(dice(client, 10) * MS);
	}
}

static void
follow_standby(Client *client)
{
	Reader	   *reader = reader_of(client, -1);

	if (standby.host && !at_end(reader) && connected_to(client, &standby) && !read_batch(client))
		rest(dice(client, 10) * MS);
}

/*
 * It was said that all up to this position can be read: so it can, without any
 * mark, and what is read now is all that there will ever be.
 */
static void
believe(Client *client, int64_t position)
{
	Reader	   *reader = client->reader;
	Buffer		sql = {0};
	Time		asked = now();

	if (position <= reader->told)
		return;
	add(&sql, "SELECT count(*) FROM ev WHERE position > %lld AND position <= %lld", (long long) reader->told, (long long) position);
	if (query(client, sql.text) == OK)
	{
		Promise    *p = promise(reader, position, reader->told, number(client, 0, 0), "");

		p->asked = asked;
		p->counted = now();
		reader->told = position;
	}
	clear(&sql);
}

/*
 * Did the worker send it?  While there is none transactions do, with positions
 * that need not be readable yet: those are hints, and no promises.
 */
static bool
is_from_worker(Client *client, int pid)
{
	char		sql[200];

	if (pid == client->worker)
		return true;
	snprintf(sql, sizeof(sql), "SELECT FROM pg_stat_activity WHERE pid = %d AND backend_type = 'event_store worker'", pid);
	if (query(client, sql) != OK || PQntuples(client->result) == 0)
		return false;
	client->worker = pid;
	return true;
}

/* Has anything been notified, within so long?  Believes what the worker says. */
static bool
heard(Client *client, Time patience)
{
	struct pollfd fd = {.fd = PQsocket(client->conn), .events = POLLIN};
	PGnotify   *notification;
	int64_t		position = -1;
	bool		any = false;

	client->doing = "LISTEN";
	if (poll(&fd, 1, patience / MS) > 0 && !PQconsumeInput(client->conn))
	{
		disconnect(client);
		return false;
	}
	while (client->conn && (notification = PQnotifies(client->conn)) != NULL)
	{
		int64_t		payload = atoll(notification->extra);

		any = true;
		if (is_from_worker(client, notification->be_pid))
		{
			if (payload < position || payload < client->reader->told)
				violation(CHECKPOINTS, "%lld was published after %lld", (long long) payload,
						  (long long) (payload < position ? position : client->reader->told));
			position = payload;
		}
		PQfreemem(notification);
	}
	if (client->conn)
		believe(client, position);
	return any;
}

/* Reads all there is, and up to where it was told that there is something. */
static void
read_up(Client *client)
{
	while (!abandoned && client->conn &&
		   (read_batch(client) || (client->conn && client->reader->checkpoint < client->reader->told)))
		;
}

static void
follow_by_listening(Client *client)
{
	Reader	   *reader = reader_of(client, -1);
	Time		last_read = now();

	if (at_end(reader) || !connected(client))
		return;
	if (query(client, "SELECT format('LISTEN %I', event_store.channel('ev'))") != OK)
		return;
	{
		char		command[200];

		snprintf(command, sizeof(command), "%s", value(client, 0, 0));
		if (query(client, command) != OK)
			return;
	}
	client->worker = 0;
	read_up(client);
	while (client->conn && !at_end(reader))
		if (heard(client, 50 * MS) || (fault_errors() != NULL && now() - last_read > POLL_ANYWAY))
		{
			if (client->conn)
				read_up(client);
			last_read = now();
		}
}

static void
follow_by_waiting(Client *client)
{
	Reader	   *reader = reader_of(client, -1);
	Buffer		sql = {0};
	Answer		answer;

	if (at_end(reader) || !connected(client))
		return;
	add(&sql, "SELECT event_store.wait_for_events('ev', %lld, '60 s')", (long long) reader->checkpoint);
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == REFUSED)
		check_refusal(client, final >= 0 ? "57014" : NULL);	/* we are called off */
	if (answer != OK)
		return;
	believe(client, number(client, 0, 0));
	if (client->conn)
		read_up(client);
}

/* A stream as it is now: without gap, and no older than what was acknowledged. */
static void
read_streams(Client *client)
{
	int			stream = some_stream(client);
	int64_t		known = known_version(stream);
	Buffer		sql = {0};
	Answer		answer;
	StreamRead	read = {.stream = stream};
	int64_t		last = 0;

	if (!connected(client))
		return;
	add(&sql, "SELECT position, version, data -> 'op', data -> 'i' FROM event_store.read_stream('ev', '%s')", stream_name(stream));
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == REFUSED)
		check_refusal(client, NULL);
	if (answer != OK)
		return;
	for (int row = 0; row < PQntuples(client->result); row++)
	{
		if (number(client, row, 1) != ++read.version || number(client, row, 0) <= last)
			violation(VERSIONS, "read_stream of %s: version %s at position %s where version %lld was due, above %lld", stream_name(stream),
					  value(client, row, 1), value(client, row, 0), (long long) read.version, (long long) last);
		last = number(client, row, 0);
		read.chain = chain(read.chain, last, number(client, row, 2), number(client, row, 3));
	}
	if (read.version < known)
		violation(ACKNOWLEDGED, "read_stream of %s had %lld events after %lld had been acknowledged", stream_name(stream),
				  (long long) read.version, (long long) known);
	pthread_mutex_lock(&mutex);
	if (nstream_reads == stream_reads_size)
	{
		stream_reads_size = stream_reads_size * 2 + 1000;
		stream_list = realloc(stream_list, sizeof(StreamRead) * stream_reads_size);
	}
	stream_list[nstream_reads++] = read;
	pthread_mutex_unlock(&mutex);
	rest(dice(client, 10) * MS);
}
