/*
 * checker.c
 *	  Compares the rows with the history: appends, streams, order, conflicts.
 *
 * What the readers have got is check_readers.c, what the server keeps beside
 * the rows is check_server.c.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>

static Row *rows;
static int64_t nrows;
static int64_t *row_of;			/* by number of event; -1: none */

/* By stream and version; an index of rows. */
static int64_t *by_version[STREAMS];
static int64_t nversions[STREAMS];

static void read_rows(void);
static void check_unchanged(const Row *old, int64_t nold);
static void check_row(Row *row, const char *id, const char *type, const char *data);
static void check_versions(void);
static void check_op(Op *op);
static void check_whole(Op *op);
static void check_part(Op *op, Part *part, int from);
static void check_order(void);
static void check_conflicts(void);

/* Nobody writes meanwhile. */
void
check_history(void)
{
	Row		   *old = rows;
	int64_t		nold = nrows;

	free(row_of);
	row_of = malloc(sizeof(int64_t) * (events_numbered() + 1));
	for (int64_t i = 0; i < events_numbered(); i++)
		row_of[i] = -1;
	rows = NULL;
	nrows = 0;
	read_rows();
	check_unchanged(old, nold);
	free(old);
	check_versions();
	for (int64_t i = 0; i < ops_begun(); i++)
		if (op_of(i)->nparts > 0)
			check_op(op_of(i));
	check_order();
	check_conflicts();
	check_readers(rows, nrows);
}

static void
read_rows(void)
{
	PGconn	   *conn = try_connect(&primary, "checker");
	int64_t		size = 0;
	char	   *line;
	int			length;

	if (conn == NULL)
	{
		violation(LIVENESS, "nobody can connect to check");
		return;
	}
	PQclear(must(conn, "SET timezone = 'UTC'"));
	PQclear(must(conn, "SET enable_seqscan = off"));
	PQclear(PQexec(conn, "COPY (SELECT position, stream, version, event_id, type, data -> 'op', data -> 'i', hashtextextended(ev::text, 0), data FROM ev ORDER BY position) TO STDOUT"));
	while ((length = PQgetCopyData(conn, &line, false)) > 0)
	{
		char		stream[512];
		char		id[64];
		char		type[256];
		char		data[1000];
		long long	position;
		long long	version;
		long long	serial;
		long long	hash;
		int			i;
		Row		   *row;

		if (nrows == size)
		{
			size = size * 2 + 10000;
			rows = realloc(rows, sizeof(Row) * size);
		}
		row = &rows[nrows];
		if (sscanf(line, "%lld\t%511[^\t]\t%lld\t%63[^\t]\t%255[^\t]\t%lld\t%d\t%lld\t%999[^\n]",
				   &position, stream, &version, id, type, &serial, &i, &hash, data) != 9)
			violation(ACKNOWLEDGED, "nobody wrote this: %s", line);
		else
		{
			*row = (Row) {.position = position, .version = version, .serial = serial, .i = i, .hash = hash, .stream = stream_number(stream)};
			nrows++;
			check_row(row, id, type, data);
		}
		PQfreemem(line);
	}
	PQclear(PQgetResult(conn));
	if (length != -1 || PQstatus(conn) != CONNECTION_OK)
		violation(LIVENESS, "the rows cannot be read: %s", PQerrorMessage(conn));
	PQfinish(conn);
}

/* 1: a row is what its operation has sent, and is there once. */
static void
check_row(Row *row, const char *id, const char *type, const char *data)
{
	Op		   *op = op_of(row->serial);
	char		expected[100];
	char		expected_type[8];
	int64_t	   *place;

	if (op == NULL || row->i < 0 || row->i >= op->nevents || row->stream < 0)
	{
		violation(ACKNOWLEDGED, "nobody wrote the event at position %lld: %s", (long long) row->position, data);
		return;
	}
	event_data(expected, op->serial, row->i);
	snprintf(expected_type, sizeof(expected_type), "T%d", row->i % 3);
	if (strcmp(data, expected) != 0 || strcmp(type, expected_type) != 0)
		violation(ACKNOWLEDGED, "position %lld has %s %s, but %s %s was sent", (long long) row->position, type, data, expected_type, expected);
	if (op->ids_given || op->ids)
	{
		if (op->ids_given)
			event_id(expected, op->serial, row->i);
		else
			strcpy(expected, op->ids[row->i]);
		if (strcmp(id, expected) != 0)
			violation(ACKNOWLEDGED, "position %lld has the id %s, but %s was its own", (long long) row->position, id, expected);
	}
	place = &row_of[op->first_event + row->i];
	if (*place >= 0)
		violation(ACKNOWLEDGED, "event %d of append %lld is there twice, at %lld and %lld", row->i, (long long) op->serial,
				  (long long) rows[*place].position, (long long) row->position);
	*place = row - rows;
}

/* 8: what was there at the last check is there still, and the same. */
static void
check_unchanged(const Row *old, int64_t nold)
{
	int64_t		r = 0;

	for (int64_t i = 0; i < nold; i++)
	{
		while (r < nrows && rows[r].position < old[i].position)
			r++;
		if (r == nrows || rows[r].position != old[i].position)
			violation(UNCHANGED, "the event at position %lld is gone", (long long) old[i].position);
		else if (rows[r].hash != old[i].hash)
			violation(UNCHANGED, "the event at position %lld is not what it was", (long long) old[i].position);
	}
}

/* 2: versions are 1..n, and rise with positions. */
static void
check_versions(void)
{
	for (int s = 0; s < STREAMS; s++)
	{
		free(by_version[s]);
		by_version[s] = NULL;
		nversions[s] = 0;
	}
	for (int64_t r = 0; r < nrows; r++)
	{
		Row		   *row = &rows[r];
		int64_t		n;

		if (row->stream < 0)
			continue;
		n = nversions[row->stream];
		if (row->version != n + 1)
			violation(VERSIONS, "position %lld is version %lld of %s, and the one before it version %lld", (long long) row->position,
					  (long long) row->version, stream_name(row->stream), (long long) n);
		if ((n & (n - 1)) == 0)
			by_version[row->stream] = realloc(by_version[row->stream], sizeof(int64_t) * (n ? n * 2 : 1));
		by_version[row->stream][n] = r;
		row->chain = chain(n ? rows[by_version[row->stream][n - 1]].chain : 0, row->position, row->serial, row->i);
		nversions[row->stream]++;
	}
}

static Row *
find_version(int stream, int64_t version)
{
	return version >= 1 && version <= nversions[stream] ? &rows[by_version[stream][version - 1]] : NULL;
}

/* What a reader of the stream should have got up to there; see chain(). */
uint64_t
chain_at(int stream, int64_t version)
{
	Row		   *row = find_version(stream, version);

	return row ? row->chain : 0;
}

static Row *
find_event(Op *op, int i)
{
	int64_t		r = row_of[op->first_event + i];

	return r >= 0 ? &rows[r] : NULL;
}

static void
check_op(Op *op)
{
	int			from = 0;

	if (op->outcome == OPEN)
		return;
	check_whole(op);
	for (int i = 0; i < op->nparts; i++)
	{
		if (!op->parts[i].undone)
			check_part(op, &op->parts[i], from);
		from += op->parts[i].nevents;
	}
}

/* 1: all of it, or nothing. */
static void
check_whole(Op *op)
{
	int			there = 0;
	int			wanted = 0;
	int			from = 0;

	for (int p = 0; p < op->nparts; p++)
	{
		Part	   *part = &op->parts[p];

		for (int i = from; i < from + part->nevents; i++)
		{
			if (find_event(op, i) == NULL)
				continue;
			there++;
			if (part->undone)
				violation(ACKNOWLEDGED, "event %d of append %lld is there, but was rolled back to a savepoint", i, (long long) op->serial);
		}
		if (!part->undone)
			wanted += part->nevents;
		from += part->nevents;
	}
	if (op->outcome == DONE && there != wanted)
		violation(ACKNOWLEDGED, "append %lld was acknowledged, and %d of its %d events are there", (long long) op->serial, there, wanted);
	if (op->outcome == FAILED && there != 0)
		violation(ACKNOWLEDGED, "append %lld has failed, and %d of its events are there", (long long) op->serial, there);
	if (op->outcome == UNKNOWN && there != 0 && there != wanted)
		violation(ACKNOWLEDGED, "of append %lld, whose outcome is unknown, %d of %d events are there", (long long) op->serial, there, wanted);
}

/* 1: where it was said to be.  3: where it was expected. */
static void
check_part(Op *op, Part *part, int from)
{
	Row		   *first = part->nevents > 0 ? find_event(op, from) : NULL;
	Row		   *last = part->nevents > 0 ? find_event(op, from + part->nevents - 1) : NULL;
	Row		   *next;

	if (part->nevents == 0)
	{
		/* Only checked: the next event of that stream came later, the last one before. */
		Row		   *mine = find_event(op, 0);

		if (mine == NULL || part->expected < 0)
			return;
		next = find_version(part->stream, part->expected + 1);
		if ((part->expected > 0 && (find_version(part->stream, part->expected) == NULL ||
									find_version(part->stream, part->expected)->position > mine->position)) ||
			(next && next->serial != op->serial && next->position < mine->position))
			violation(EXPECTED, "append %lld succeeded, but stream %s was not at version %lld", (long long) op->serial,
					  stream_name(part->stream), (long long) part->expected);
		return;
	}
	if (first == NULL || last == NULL)
		return;
	if (op->outcome == DONE && part->first_version > 0 &&
		(first->version != part->first_version || first->position != part->first_position ||
		 last->version != part->last_version || last->position != part->last_position))
		violation(ACKNOWLEDGED, "append %lld returned versions %lld to %lld, positions %lld to %lld; they are %lld to %lld, %lld to %lld", (long long) op->serial,
				  (long long) part->first_version, (long long) part->last_version, (long long) part->first_position, (long long) part->last_position,
				  (long long) first->version, (long long) last->version, (long long) first->position, (long long) last->position);
	if (first->stream != part->stream || last->version - first->version != part->nevents - 1)
		violation(ACKNOWLEDGED, "append %lld is not in one piece at version %lld of %s", (long long) op->serial, (long long) first->version, stream_name(first->stream));
	if (part->expected >= 0 && first->version != part->expected + 1)
		violation(EXPECTED, "append %lld expected version %lld and succeeded after version %lld", (long long) op->serial,
				  (long long) part->expected, (long long) first->version - 1);
	if (part->expected == EXISTS && first->version == 1)
		violation(EXPECTED, "append %lld expected a stream that did not exist, and succeeded", (long long) op->serial);
}

typedef struct Span
{
	Time		asked;
	Time		answered;
	int64_t		serial;
	int64_t		low;
	int64_t		high;
} Span;

static int
by_asked(const void *a, const void *b)
{
	const Span *x = a;
	const Span *y = b;

	return (x->asked > y->asked) - (x->asked < y->asked);
}

static int
by_answered(const void *a, const void *b)
{
	const Span *x = *(const Span *const *) a;
	const Span *y = *(const Span *const *) b;

	return (x->answered > y->answered) - (x->answered < y->answered);
}

/* 9: what was acknowledged before another was called has the lower positions. */
static void
check_order(void)
{
	Span	   *spans = malloc(sizeof(Span) * (ops_begun() + 1));
	Span	  **acknowledged = malloc(sizeof(Span *) * (ops_begun() + 1));
	Span	   *highest = NULL;
	int64_t		n = 0;
	int64_t		a = 0;

	for (int64_t i = 0; i < ops_begun(); i++)
	{
		Op		   *op = op_of(i);
		Span		span = {.asked = op->asked, .answered = op->answered, .serial = i, .low = INT64_MAX};

		for (int e = 0; e < op->nevents && op->outcome != OPEN; e++)
		{
			Row		   *row = find_event(op, e);

			if (row && row->position < span.low)
				span.low = row->position;
			if (row && row->position > span.high)
				span.high = row->position;
		}
		if (span.high > 0)
			spans[n++] = span;
	}
	qsort(spans, n, sizeof(Span), by_asked);
	for (int64_t i = 0; i < n; i++)
		acknowledged[i] = &spans[i];
	qsort(acknowledged, n, sizeof(Span *), by_answered);
	for (int64_t i = 0; i < n; i++)
	{
		for (; a < n && acknowledged[a]->answered < spans[i].asked; a++)
			if (highest == NULL || acknowledged[a]->high > highest->high)
				highest = acknowledged[a];
		if (highest && highest->high > spans[i].low)
			violation(ORDER, "append %lld was acknowledged with position %lld before append %lld was called, which got position %lld",
					  (long long) highest->serial, (long long) highest->high, (long long) spans[i].serial, (long long) spans[i].low);
	}
	free(acknowledged);
	free(spans);
}

/*
 * 9: a conflict names a version that was true at some instant of the call: the
 * event of that version may have been committed before the end, and the next one
 * was not acknowledged before the beginning.
 */
static void
check_conflicts(void)
{
	int64_t		count;
	Conflict   *list = conflicts(&count);

	for (int64_t i = 0; i < count; i++)
	{
		Conflict   *c = &list[i];
		Row		   *this = find_version(c->stream, c->actual);
		Row		   *next = find_version(c->stream, c->actual + 1);

		if (c->actual == c->expected || (c->expected == EXISTS && c->actual > 0))
			violation(ORDER, "a conflict with what was expected: version %lld of %s", (long long) c->actual, stream_name(c->stream));
		if ((c->actual > 0 && (this == NULL || op_of(this->serial)->asked > c->answered)) ||
			(next && op_of(next->serial)->answered < c->asked))
			violation(ORDER, "a conflict said that stream %s was at version %lld, which it was at no time of the call", stream_name(c->stream), (long long) c->actual);
	}
}
