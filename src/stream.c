/*
 * stream.c
 *	  Reading streams: read_stream(), stream_version(), last_event(),
 *	  read_event(), last_position(); going from stream to stream.
 *
 * With the snapshot of the calling statement, so that a transaction sees its
 * own events.
 */
#include "postgres.h"

#include "arguments.h"
#include "fmgr.h"
#include "read.h"
#include "scan.h"
#include "stream.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(event_store_read_stream);
PG_FUNCTION_INFO_V1(event_store_stream_version);
PG_FUNCTION_INFO_V1(event_store_last_event);
PG_FUNCTION_INFO_V1(event_store_read_event);
PG_FUNCTION_INFO_V1(event_store_last_position);

static void
open_query(FunctionCallInfo fcinfo, EventQuery *query)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);

	es_query_init(query, table, GetActiveSnapshot());
}

Datum
event_store_read_stream(PG_FUNCTION_ARGS)
{
	EventQuery	query;
	TimestampTz as_of;

	open_query(fcinfo, &query);
	query.stream = es_arg_stream(fcinfo, 1);
	query.backward = es_arg_backward(fcinfo, 4);
	if (query.backward)
		query.high = es_arg_int64(fcinfo, 2, PG_INT64_MAX);
	else
		query.low = es_arg_int64(fcinfo, 2, PG_INT64_MIN);
	query.max_count = es_arg_max_count(fcinfo, 3, PG_INT64_MAX);
	if (!PG_ARGISNULL(5))
	{
		as_of = PG_GETARG_TIMESTAMPTZ(5);
		query.as_of = &as_of;
	}
	query.upcast = !es_arg_flag(fcinfo, 6);
	es_return_events(fcinfo, &query);
	es_event_table_close(query.table);
	return (Datum) 0;
}

static Received
take_version(EventTable *table, TupleTableSlot *slot, void *arg)
{
	*(int64 *) arg = es_slot_int64(slot, table, ES_VERSION);
	return ES_ENOUGH;
}

Datum
event_store_stream_version(PG_FUNCTION_ARGS)
{
	EventQuery	query;
	int64		version = 0;

	open_query(fcinfo, &query);
	query.stream = es_arg_stream(fcinfo, 1);
	query.backward = true;
	es_read_events(&query, take_version, &version);
	es_event_table_close(query.table);
	PG_RETURN_INT64(version);
}

Datum
event_store_last_event(PG_FUNCTION_ARGS)
{
	EventQuery	query;
	text	   *type;
	TextSet		types = {.n = 1,.members = &type};

	open_query(fcinfo, &query);
	query.stream = es_arg_stream(fcinfo, 1);
	query.backward = true;
	query.max_count = 1;
	if (!PG_ARGISNULL(2))
	{
		type = PG_GETARG_TEXT_PP(2);
		query.types = &types;
	}
	query.upcast = !es_arg_flag(fcinfo, 3);
	es_return_events(fcinfo, &query);
	es_event_table_close(query.table);
	return (Datum) 0;
}

Datum
event_store_read_event(PG_FUNCTION_ARGS)
{
	EventQuery	query;

	open_query(fcinfo, &query);
	if (PG_ARGISNULL(1))
		es_null_argument("event_id");
	query.event_id = PG_GETARG_UUID_P(1);
	query.upcast = !es_arg_flag(fcinfo, 2);
	es_return_events(fcinfo, &query);
	es_event_table_close(query.table);
	return (Datum) 0;
}

static Received
take_position(EventTable *table, TupleTableSlot *slot, void *arg)
{
	*(int64 *) arg = es_slot_int64(slot, table, ES_POSITION);
	return ES_ENOUGH;
}

Datum
event_store_last_position(PG_FUNCTION_ARGS)
{
	EventQuery	query;
	int64		position = 0;

	open_query(fcinfo, &query);
	query.backward = true;
	es_read_events(&query, take_position, &position);
	es_event_table_close(query.table);
	PG_RETURN_INT64(position);
}

typedef struct Newest
{
	const TimestampTz *as_of;
	int64		version;
} Newest;

static Received
take_newest(EventTable *table, TupleTableSlot *slot, void *arg)
{
	Newest	   *newest = arg;
	bool		isnull;

	if (newest->as_of &&
		DatumGetTimestampTz(es_slot_datum(slot, table, ES_RECORDED_AT, &isnull)) > *newest->as_of)
		return ES_MORE;
	newest->version = es_slot_int64(slot, table, ES_VERSION);
	return ES_ENOUGH;
}

/*
 * The newest version, up to at_version, that was recorded at or before a time
 * (NULL: ever); 0 if there is none.  A clock that was set back does not hide
 * older versions.
 */
int64
es_newest_version(EventTable *table, Snapshot snapshot, text *stream,
				  int64 at_version, const TimestampTz *as_of)
{
	EventQuery	query;
	Newest		newest = {.as_of = as_of};

	es_query_init(&query, table, snapshot);
	query.stream = stream;
	query.backward = true;
	query.high = at_version;
	if (as_of == NULL)
		query.max_count = 1;
	es_read_events(&query, take_newest, &newest);
	return newest.version;
}

static text *
append_char(const text *name, char c)
{
	int			length = VARSIZE_ANY_EXHDR(name);
	text	   *result = palloc(VARHDRSZ + length + 1);

	SET_VARSIZE(result, VARHDRSZ + length + 1);
	memcpy(VARDATA(result), VARDATA_ANY(name), length);
	VARDATA(result)[length] = c;
	return result;
}

/*
 * The streams of category "order" are "order", and those that begin with
 * "order-".  What comes next in ASCII is "order.".  Other streams are in
 * between, "order!" for example.  No category: all streams.
 */
void
es_walk_streams(StreamWalk *walk, EventTable *table, Snapshot snapshot, text *category)
{
	memset(walk, 0, sizeof(StreamWalk));
	walk->table = table;
	walk->snapshot = snapshot;
	walk->context = CurrentMemoryContext;
	if (category == NULL)
		walk->after = cstring_to_text("");
	else if (!memchr(VARDATA_ANY(category), '-', VARSIZE_ANY_EXHDR(category)))
	{
		walk->single[1] = category;
		walk->single[0] = append_char(category, '-');
		walk->nsingle = 2;
		walk->after = append_char(category, '-');
		walk->before = append_char(category, '.');
	}
}

static Received
take_stream(EventTable *table, TupleTableSlot *slot, void *arg)
{
	StreamWalk *walk = arg;
	MemoryContext old = MemoryContextSwitchTo(walk->context);
	bool		isnull;

	walk->stream = DatumGetTextPCopy(es_slot_datum(slot, table, ES_STREAM, &isnull));
	MemoryContextSwitchTo(old);
	return ES_ENOUGH;
}

/* The next stream, good until the next call; NULL after the last. */
text *
es_next_stream(StreamWalk *walk)
{
	EventQuery	query;

	walk->stream = NULL;
	while (walk->stream == NULL && walk->nsingle > 0)
	{
		es_query_init(&query, walk->table, walk->snapshot);
		query.max_count = 1;
		query.stream = walk->single[--walk->nsingle];
		es_read_events(&query, take_stream, walk);
	}
	if (walk->stream == NULL && walk->after != NULL)
	{
		es_query_init(&query, walk->table, walk->snapshot);
		query.max_count = 1;
		query.after_stream = walk->after;
		query.before_stream = walk->before;
		es_read_events(&query, take_stream, walk);
		pfree(walk->after);
		walk->after = walk->stream;
	}
	return walk->stream;
}
