/*
 * check_readers.c
 *	  Compares the rows with what the readers have got, and were told.
 */
#include "stress.h"

#include <string.h>

static void check_seen(const Reader *reader, const Row *rows, int64_t nrows);
static void check_promises(const Reader *reader, const Row *rows, int64_t nrows);
static void describe_difference(const Reader *reader, const Promise *p, const Row *rows, int64_t nrows);
static void check_streams(void);

void
check_readers(const Row *rows, int64_t nrows)
{
	for (int i = 0; readers(i); i++)
	{
		check_seen(readers(i), rows, nrows);
		check_promises(readers(i), rows, nrows);
	}
	check_streams();
}

/* 4: every event up to the checkpoint, once, in order, and nothing else. */
static void
check_seen(const Reader *reader, const Row *rows, int64_t nrows)
{
	int64_t		s = 0;

	for (int64_t r = 0; r < nrows && rows[r].position <= reader->checkpoint; r++)
	{
		if (reader->category >= 0 && rows[r].stream % CATEGORIES != reader->category)
			continue;
		for (; s < reader->count && reader->seen[s].position < rows[r].position; s++)
			violation(READERS, "reader %s got position %lld, which is not there", reader->name, (long long) reader->seen[s].position);
		if (s == reader->count || reader->seen[s].position != rows[r].position)
		{
			violation(READERS, "reader %s has lost position %lld, event %d of append %lld; its checkpoint is %lld", reader->name,
					  (long long) rows[r].position, rows[r].i, (long long) rows[r].serial, (long long) reader->checkpoint);
			continue;
		}
		if (reader->seen[s].serial != rows[r].serial || reader->seen[s].i != rows[r].i)
			violation(READERS, "reader %s got another event at position %lld", reader->name, (long long) rows[r].position);
		s++;
	}
	for (; s < reader->count; s++)
		violation(READERS, "reader %s got position %lld, which is not there", reader->name, (long long) reader->seen[s].position);
}

static int64_t
rows_up_to(const Row *rows, int64_t nrows, int64_t position)
{
	int64_t		low = 0;
	int64_t		high = nrows;

	while (low < high)
	{
		int64_t		middle = (low + high) / 2;

		if (rows[middle].position <= position)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * 5: a checkpoint is the position of an event, with its id.  Up to what was
 * published nothing has appeared since.
 */
static void
check_promises(const Reader *reader, const Row *rows, int64_t nrows)
{
	for (int64_t i = 0; i < reader->npromises; i++)
	{
		const Promise *p = &reader->promises[i];
		int64_t		n = rows_up_to(rows, nrows, p->position);
		const Row  *row = n > 0 ? &rows[n - 1] : NULL;
		char		id[37];

		if (row == NULL || row->position != p->position)
		{
			violation(CHECKPOINTS, "reader %s was told position %lld, where there is no event", reader->name, (long long) p->position);
			continue;
		}
		if (p->event_id[0] && op_of(row->serial) && op_of(row->serial)->ids_given)
		{
			event_id(id, row->serial, row->i);
			if (strcmp(id, p->event_id) != 0)
				violation(CHECKPOINTS, "the checkpoint of reader %s at position %lld had the id of another event", reader->name, (long long) p->position);
		}
		if (p->rows >= 0 && p->rows != n - rows_up_to(rows, nrows, p->above))
			describe_difference(reader, p, rows, nrows);
	}
}

/* Says which of the events may have appeared later. */
static void
describe_difference(const Reader *reader, const Promise *p, const Row *rows, int64_t nrows)
{
	char		later[500] = "";
	int64_t		first = rows_up_to(rows, nrows, p->above);
	int64_t		end = rows_up_to(rows, nrows, p->position);

	for (int64_t r = first; r < end; r++)
	{
		Op		   *op = op_of(rows[r].serial);

		if (op && op->answered > p->asked && strlen(later) < 400)
			sprintf(later + strlen(later), " %lld (append %lld, kind %d, %s%.1f ms later)", (long long) rows[r].position, (long long) op->serial, op->kind,
					op->answered == NEVER ? "unknown " : "", op->answered == NEVER ? 0.0 : (double) (op->answered - p->asked) / MS);
	}
	violation(CHECKPOINTS, "%s: position %lld was published when there were %lld events from %lld on, now there are %lld; acknowledged since:%s", reader->name,
			  (long long) p->position, (long long) p->rows, (long long) p->above + 1, (long long) (end - first), later);
}

/* What was read of a stream is its beginning. */
static void
check_streams(void)
{
	int64_t		count;
	StreamRead *reads = stream_reads(&count);

	for (int64_t i = 0; i < count; i++)
		if (reads[i].version > 0 && reads[i].chain != chain_at(reads[i].stream, reads[i].version))
			violation(UNCHANGED, "stream %s had other events when it was read at version %lld", stream_name(reads[i].stream), (long long) reads[i].version);
}
