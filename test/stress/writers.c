/*
 * writers.c
 *	  Clients that append with one statement each.
 *
 * An append with event ids of its own is repeated, the same, until its outcome is
 * known.  What has none, an INSERT or COPY, stays unknown when the connection
 * breaks.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>

static void write_single(Client *client);
static void write_batch(Client *client);
static void write_json(Client *client);
static void write_several(Client *client);
static void write_insert(Client *client);
static void write_copy(Client *client);
static void repeat(Client *client);
static void time_out(Client *client);
static void fill_lock_table(Client *client);

/*
 * Transactions that append to several streams in any order deadlock.  Whoever only
 * waits behind such two for a lock may be the one whom the server tells.
 */
#define DEADLOCK	"40P01"
#define CONFLICT	"SE001"

const Kind	append_kinds[] = {
	{"single", false, write_single, CONFLICT " " DEADLOCK},
	{"batch", false, write_batch, CONFLICT " " DEADLOCK},
	{"json", false, write_json, CONFLICT " " DEADLOCK},
	{"several", false, write_several, CONFLICT " " DEADLOCK},
	{"insert", false, write_insert, DEADLOCK},
	{"copy", false, write_copy, DEADLOCK},
	{"repeat", false, repeat, DEADLOCK},
	{"timeout", false, time_out, CONFLICT " " DEADLOCK " 57014"},
	{"locks", false, fill_lock_table, DEADLOCK " 53200"},
	{NULL}
};

/* Half of all goes to a few streams. */
int
some_stream(Client *client)
{
	return dice(client, 2) ? dice(client, STREAMS) : dice(client, 6);
}

/* For those who keep its lock for long. */
int
quiet_stream(Client *client)
{
	return dice(client, 4) ? STREAMS - 1 - dice(client, 20) : some_stream(client);
}

/* What a writer may expect of a stream; mostly what it is right in. */
int64_t
some_version(Client *client, int stream)
{
	switch (dice(client, 8))
	{
		case 0:
		case 1:
			return ANY;
		case 2:
			return EXISTS;
		case 3:
			return known_version(stream) > 0 && dice(client, 10) ? known_version(stream) - dice(client, 2) : 0;
		default:
			return known_version(stream);
	}
}

/* The events as a list; the format has four texts: type, data, event id, stream. */
void
add_events(Buffer *sql, Op *op, int from, int count, const char *format)
{
	char		data[100];
	char		id[37];
	char		type[8];
	char	   *text;
	int			part = 0;
	int			last = op->parts[0].nevents;

	for (int i = from; i < from + count; i++)
	{
		while (i >= last)
			last += op->parts[++part].nevents;
		event_data(data, op->serial, i);
		event_id(id, op->serial, i);
		snprintf(type, sizeof(type), "T%d", i % 3);
		text = malloc(strlen(format) + 300);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		sprintf(text, format, type, data, id, stream_name(op->parts[part].stream));
#pragma GCC diagnostic pop
		add(sql, "%s%s", i > from ? ", " : "", text);
		free(text);
	}
}

static void
add_version(Buffer *sql, int64_t expected)
{
	if (expected == ANY)
		add(sql, "NULL");
	else
		add(sql, "%lld", (long long) expected);
}

static void
add_several(Buffer *sql, Op *op)
{
	int			from = 0;
	bool		first = true;

	add(sql, "SELECT first_version, last_version, first_position, last_position, duplicate FROM event_store.append_streams('ev', '[");
	for (int i = 0; i < op->nparts; i++)
	{
		Part	   *part = &op->parts[i];

		if (part->nevents == 0)
			continue;
		add(sql, "%s{\"stream\": \"%s\", ", first ? "" : ", ", stream_name(part->stream));
		first = false;
		if (part->expected != ANY)
			add(sql, "\"expected_version\": %lld, ", (long long) part->expected);
		add(sql, "\"events\": [");
		add_events(sql, op, from, part->nevents, "{\"type\": \"%s\", \"data\": %s, \"event_id\": \"%s\"}");
		add(sql, "]}");
		from += part->nevents;
	}
	add(sql, "]', '[");
	first = true;
	for (int i = 0; i < op->nparts; i++)
	{
		Part	   *part = &op->parts[i];

		if (part->nevents > 0)
			continue;
		add(sql, "%s{\"stream\": \"%s\", \"expected_version\": %lld}", first ? "" : ", ", stream_name(part->stream), (long long) part->expected);
		first = false;
	}
	add(sql, "]')");
}

/* The statement of an operation that is one call; the same whenever asked. */
void
add_append(Buffer *sql, Op *op)
{
	const char *columns = "SELECT first_version, last_version, first_position, last_position, duplicate FROM event_store.";
	Part	   *part = &op->parts[0];
	char		data[100];
	char		id[37];

	if (op->kind == SEVERAL)
	{
		add_several(sql, op);
		return;
	}
	if (op->kind == SINGLE)
	{
		event_data(data, op->serial, 0);
		event_id(id, op->serial, 0);
		add(sql, "%sappend('ev', '%s', 'T0', '%s', event_id => '%s', expected_version => ", columns, stream_name(part->stream), data, id);
	}
	else if (op->kind == BATCH)
	{
		add(sql, "%sappend_batch('ev', '%s', ARRAY[", columns, stream_name(part->stream));
		add_events(sql, op, 0, op->nevents, "'%s'");
		add(sql, "], ARRAY[");
		add_events(sql, op, 0, op->nevents, "'%2$s'");
		add(sql, "]::jsonb[], event_ids => ARRAY[");
		add_events(sql, op, 0, op->nevents, "'%3$s'");
		add(sql, "]::uuid[], expected_version => ");
	}
	else
	{
		add(sql, "%sappend_json('ev', '%s', '[", columns, stream_name(part->stream));
		add_events(sql, op, 0, op->nevents, "{\"type\": \"%s\", \"data\": %s, \"event_id\": \"%s\"}");
		add(sql, "]', expected_version => ");
	}
	add_version(sql, part->expected);
	add(sql, ")");
}

/* What the call has returned, a row for each part that has events. */
void
take_results(Client *client, Op *op)
{
	int			row = 0;

	for (int i = 0; i < op->nparts; i++)
	{
		Part	   *part = &op->parts[i];

		if (part->nevents == 0)
			continue;
		if (row >= PQntuples(client->result))
		{
			violation(ACKNOWLEDGED, "append %lld returned %d rows", (long long) op->serial, PQntuples(client->result));
			return;
		}
		part->first_version = number(client, row, 0);
		part->last_version = number(client, row, 1);
		part->first_position = number(client, row, 2);
		part->last_position = number(client, row, 3);
		row++;
	}
}

/* From DETAIL, for each stream that it names. */
static void
take_conflicts(Client *client, Time asked)
{
	Time		answered = now();

	for (char *line = strtok(client->detail, "\n"); line; line = strtok(NULL, "\n"))
	{
		char		name[64];
		long long	actual;
		long long	expected = EXISTS;

		if (sscanf(line, "Stream \"%63[^\"]\" is at version %lld, expected %lld.", name, &actual, &expected) >= 2 && stream_number(name) >= 0)
			note_conflict((Conflict) {.stream = stream_number(name), .expected = expected, .actual = actual, .asked = asked, .answered = answered});
		else
			violation(ORDER, "a conflict without version: %s", line);
	}
}

/* Until it is known whether it has been done. */
static void
append(Client *client, Op *op)
{
	Buffer		sql = {0};
	bool		maybe = false;

	add_append(&sql, op);
	op_number(op);
	while (connected(client))
	{
		Time		asked = now();
		Answer		answer;

		client->may_be_cut = true;
		answer = query(client, sql.text);
		if (answer == LOST)
		{
			maybe = true;
			count_unknown++;
			continue;
		}
		if (answer == OK)
		{
			take_results(client, op);
			if (value(client, 0, 4)[0] == 't' && !maybe)
				violation(ACKNOWLEDGED, "append %lld was called a duplicate at the first time", (long long) op->serial);
			op_done(op, now());
		}
		else
		{
			check_refusal(client, NULL);
			if (strcmp(client->sqlstate, CONFLICT) == 0)
				take_conflicts(client, asked);
			if (!maybe)
				op->outcome = FAILED;
		}
		break;
	}
	clear(&sql);
}

static void
write_single(Client *client)
{
	Op		   *op = op_begin(SINGLE, true);
	int			stream = some_stream(client);

	op_part(op, stream, some_version(client, stream), 1);
	append(client, op);
}

static void
write_batch(Client *client)
{
	Op		   *op = op_begin(BATCH, true);
	int			stream = some_stream(client);

	op_part(op, stream, some_version(client, stream), 2 + dice(client, 12));
	append(client, op);
}

static void
write_json(Client *client)
{
	Op		   *op = op_begin(JSON, true);
	int			stream = some_stream(client);

	op_part(op, stream, some_version(client, stream), 1 + dice(client, 5));
	append(client, op);
}

/* Several streams, each once, the last ones only checked. */
static void
write_several(Client *client)
{
	Op		   *op = op_begin(SEVERAL, true);
	int			count = 2 + dice(client, 4);
	int			checks = dice(client, 2);
	int			stream = some_stream(client);

	for (int i = 0; i < count; i++, stream = (stream + 7) % STREAMS)
	{
		bool		check = i >= count - checks;

		op_part(op, stream, check || dice(client, 2) ? known_version(stream) : ANY, check ? 0 : 1 + dice(client, 3));
	}
	append(client, op);
}

/* INSERT of several rows, to one stream or two, with or without ids. */
static void
write_insert(Client *client)
{
	Op		   *op = op_begin(INSERT, dice(client, 2));
	Buffer		sql = {0};
	int			stream = some_stream(client);
	Answer		answer;

	op_part(op, stream, ANY, 1 + dice(client, 4));
	if (dice(client, 3) == 0)
		op_part(op, (stream + 1 + dice(client, STREAMS - 1)) % STREAMS, ANY, 1 + dice(client, 3));
	op_number(op);
	add(&sql, "INSERT INTO ev (type, data, %sstream) VALUES ", op->ids_given ? "event_id, " : "");
	add_events(&sql, op, 0, op->nevents, op->ids_given ? "('%s', '%s', '%s', '%s')" : "('%1$s', '%2$s', '%4$s')");
	add(&sql, " RETURNING version, position, event_id");
	if (!connected(client))
	{
		op->outcome = FAILED;
		clear(&sql);
		return;
	}
	client->may_be_cut = true;
	answer = query(client, sql.text);
	if (answer == OK)
	{
		int			row = 0;

		for (int i = 0; i < op->nparts; i++)
		{
			Part	   *part = &op->parts[i];

			part->first_version = number(client, row, 0);
			part->first_position = number(client, row, 1);
			row += part->nevents;
			part->last_version = number(client, row - 1, 0);
			part->last_position = number(client, row - 1, 1);
		}
		if (!op->ids_given)
		{
			op->ids = malloc(37 * op->nevents);
			for (int i = 0; i < op->nevents; i++)
				memcpy(op->ids[i], value(client, i, 2), 37);
		}
		op_done(op, now());
	}
	else if (answer == REFUSED)
	{
		check_refusal(client, NULL);
		op->outcome = FAILED;
	}
	else
		count_unknown++;
	clear(&sql);
}

static void
write_copy(Client *client)
{
	Op		   *op = op_begin(COPY, true);
	Buffer		rows = {0};
	int			stream = some_stream(client);
	char		data[100];
	char		id[37];
	int			i = 0;
	Answer		answer;

	op_part(op, stream, ANY, 5 + dice(client, 20));
	if (dice(client, 2))
		op_part(op, (stream + 1 + dice(client, STREAMS - 1)) % STREAMS, ANY, 1 + dice(client, 10));
	op_number(op);
	for (int p = 0; p < op->nparts; p++)
		for (int n = 0; n < op->parts[p].nevents; n++, i++)
		{
			event_data(data, op->serial, i);
			event_id(id, op->serial, i);
			add(&rows, "%s\tT%d\t%s\t%s\n", stream_name(op->parts[p].stream), i % 3, data, id);
		}
	if (!connected(client))
	{
		op->outcome = FAILED;
		clear(&rows);
		return;
	}
	answer = copy(client, "COPY ev (stream, type, data, event_id) FROM STDIN", rows.text);
	if (answer == OK)
		op_done(op, now());
	else if (answer == REFUSED)
	{
		check_refusal(client, NULL);
		op->outcome = FAILED;
	}
	else
		count_unknown++;
	clear(&rows);
}

/*
 * Sends again what was acknowledged long ago: the same comes back, and nothing
 * is written.  And the same ids with other data: that is refused.
 */
static void
repeat(Client *client)
{
	Op		   *old = op_of(dice(client, ops_begun() + 1));
	Buffer		sql = {0};
	Answer		answer;

	if (old == NULL || !old->repeatable || old->outcome != DONE)
		return;
	if (!connected(client))
		return;
	if (dice(client, 4) == 0)
	{
		char		id[37];

		event_id(id, old->serial, 0);
		add(&sql, "SELECT 1 FROM event_store.append('ev', '%s', 'Other', '{\"op\": -1}', event_id => '%s')",
			stream_name(old->parts[0].stream), id);
		answer = query(client, sql.text);
		if (answer == OK)
			violation(ACKNOWLEDGED, "the ids of append %lld were taken again for another event", (long long) old->serial);
		else if (answer == REFUSED)
			check_refusal(client, "SE003");
		clear(&sql);
		return;
	}
	add_append(&sql, old);
	answer = query(client, sql.text);
	if (answer == REFUSED)
		check_refusal(client, NULL);
	if (answer == OK)
	{
		Op			again = {.serial = old->serial, .nparts = old->nparts};

		again.parts = malloc(sizeof(Part) * old->nparts);
		memcpy(again.parts, old->parts, sizeof(Part) * old->nparts);
		take_results(client, &again);
		if (value(client, 0, 4)[0] != 't' || memcmp(again.parts, old->parts, sizeof(Part) * old->nparts) != 0)
			violation(ACKNOWLEDGED, "append %lld, sent again, had another result", (long long) old->serial);
		count_duplicates++;
		free(again.parts);
	}
	clear(&sql);
}

/* Batches that may take no longer than a few milliseconds. */
static void
time_out(Client *client)
{
	if (connected(client) && client->fresh)
	{
		client->fresh = query(client, "SET statement_timeout = '4ms'") != OK;
		return;
	}
	write_batch(client);
}

/* More streams than there are locks for: it fails, or is done, but is whole. */
static void
fill_lock_table(Client *client)
{
	Op		   *op;
	Buffer		sql = {0};
	Answer		answer;

	rest((200 + dice(client, 800)) * MS);
	if (!fault_is_on("locks"))
		return;
	op = op_begin(INSERT, true);
	op_part(op, 0, ANY, 1);
	op_number(op);
	add(&sql, "INSERT INTO ev (type, data, event_id, stream) VALUES ");
	add_events(&sql, op, 0, 1, "('%s', '%s', '%s', '%s')");
	add(&sql, " RETURNING version, position");
	if (!connected(client))
	{
		op->outcome = FAILED;
		clear(&sql);
		return;
	}
	answer = query(client, "BEGIN");
	if (answer == OK)
		answer = query(client, sql.text);
	if (answer == OK)
	{
		op->parts[0].first_version = op->parts[0].last_version = number(client, 0, 0);
		op->parts[0].first_position = op->parts[0].last_position = number(client, 0, 1);
		answer = query(client, "INSERT INTO ev (stream, type, data) SELECT 'z-' || n, 'Many', '{\"op\": -1}' FROM generate_series(1, 100000) n");
		if (answer == OK)
			violation(SERVER, "there is no end of locks");
	}
	op->outcome = FAILED;		/* there is no COMMIT */
	if (answer == REFUSED)
		check_refusal(client, NULL);
	if (answer != LOST)
		(void) query(client, "ROLLBACK");
	clear(&sql);
}
