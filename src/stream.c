/*
 * stream.c
 *	  Reading streams: read_stream(), stream_version(), last_event(),
 *	  read_event(), last_position().
 *
 * With the snapshot of the calling statement, so that a transaction sees its
 * own events.
 */
#include "postgres.h"

#include "arguments.h"
#include "fmgr.h"
#include "read.h"
#include "scan.h"
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
