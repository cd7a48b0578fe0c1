/*
 * append.c
 *	  append() and append_batch(): from SQL arguments to the steps of an append.
 */
#include "postgres.h"

#include "append_steps.h"
#include "arguments.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "result.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(event_store_append);
PG_FUNCTION_INFO_V1(event_store_append_batch);

typedef struct Elements
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
} Elements;

static void set_value(NewEvent *event, EventColumn column, FunctionCallInfo fcinfo, int arg);
static void set_expected_version(StreamAppend *append, FunctionCallInfo fcinfo, int arg);
static bool get_elements(FunctionCallInfo fcinfo, int arg, const char *name, int expected, bool nulls_allowed, Elements *elements);
static void set_element(NewEvent *event, EventColumn column, Elements *elements, int i);

Datum
event_store_append(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), RowExclusiveLock, ES_FOR_APPENDING);
	NewEvent	event;
	StreamAppend append = {.nevents = 1,.events = &event};

	append.stream = es_arg_stream(fcinfo, 1);
	es_check_type(PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2));
	if (PG_ARGISNULL(3))
		es_null_argument("data");
	set_expected_version(&append, fcinfo, 4);
	append.ids_given = !PG_ARGISNULL(5);
	if (PG_ARGISNULL(10))
		es_null_argument("schema_version");
	es_check_schema_version(PG_GETARG_INT32(10));

	set_value(&event, ES_TYPE, fcinfo, 2);
	set_value(&event, ES_DATA, fcinfo, 3);
	set_value(&event, ES_EVENT_ID, fcinfo, 5);
	set_value(&event, ES_METADATA, fcinfo, 6);
	set_value(&event, ES_CORRELATION_ID, fcinfo, 7);
	set_value(&event, ES_CAUSATION_ID, fcinfo, 8);
	set_value(&event, ES_OCCURRED_AT, fcinfo, 9);
	set_value(&event, ES_SCHEMA_VERSION, fcinfo, 10);

	es_append(table, &append, 1);
	es_event_table_close(table);
	return es_append_result(fcinfo, &append);
}

Datum
event_store_append_batch(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), RowExclusiveLock, ES_FOR_APPENDING);
	StreamAppend append = {.nevents = 0};
	Elements	types,
				data,
				ids,
				metadata,
				occurred_at,
				schema_versions;

	append.stream = es_arg_stream(fcinfo, 1);
	set_expected_version(&append, fcinfo, 4);
	if (!get_elements(fcinfo, 2, "types", -1, false, &types))
		es_null_argument("types");
	if (!get_elements(fcinfo, 3, "data", types.n, false, &data))
		es_null_argument("data");
	append.ids_given = get_elements(fcinfo, 5, "event_ids", types.n, false, &ids);
	get_elements(fcinfo, 6, "metadata", types.n, true, &metadata);
	get_elements(fcinfo, 9, "occurred_at", types.n, true, &occurred_at);
	get_elements(fcinfo, 10, "schema_versions", types.n, false, &schema_versions);
	if (types.n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there are no events to append"),
				 errdetail("The array types is empty.")));

	append.nevents = types.n;
	append.events = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(NewEvent) * (Size) types.n);
	for (int i = 0; i < types.n; i++)
	{
		NewEvent   *event = &append.events[i];

		es_check_type(DatumGetTextPP(types.values[i]));
		set_element(event, ES_TYPE, &types, i);
		set_element(event, ES_DATA, &data, i);
		set_element(event, ES_EVENT_ID, &ids, i);
		set_element(event, ES_METADATA, &metadata, i);
		set_element(event, ES_OCCURRED_AT, &occurred_at, i);
		set_element(event, ES_SCHEMA_VERSION, &schema_versions, i);
		if (event->nulls[ES_SCHEMA_VERSION])
		{
			event->values[ES_SCHEMA_VERSION] = Int32GetDatum(1);
			event->nulls[ES_SCHEMA_VERSION] = false;
		}
		es_check_schema_version(DatumGetInt32(event->values[ES_SCHEMA_VERSION]));
		set_value(event, ES_CORRELATION_ID, fcinfo, 7);
		set_value(event, ES_CAUSATION_ID, fcinfo, 8);
	}

	es_append(table, &append, 1);
	es_event_table_close(table);
	return es_append_result(fcinfo, &append);
}

static void
set_value(NewEvent *event, EventColumn column, FunctionCallInfo fcinfo, int arg)
{
	event->nulls[column] = PG_ARGISNULL(arg);
	if (PG_ARGISNULL(arg))
		return;
	event->values[column] = PG_GETARG_DATUM(arg);
	/* Not a value that the row would have to fetch from another table. */
	if (es_columns[column].type == JSONBOID || es_columns[column].type == TEXTOID)
		event->values[column] = PointerGetDatum(PG_GETARG_VARLENA_PP(arg));
}

static void
set_expected_version(StreamAppend *append, FunctionCallInfo fcinfo, int arg)
{
	append->check_version = !PG_ARGISNULL(arg);
	if (!append->check_version)
		return;
	append->expected_version = PG_GETARG_INT64(arg);
	es_check_expected_version(append->expected_version);
}

/* The elements of an array argument; false where it is NULL. */
static bool
get_elements(FunctionCallInfo fcinfo, int arg, const char *name, int expected,
			 bool nulls_allowed, Elements *elements)
{
	ArrayType  *array;
	int16		typlen;
	bool		typbyval;
	char		typalign;

	memset(elements, 0, sizeof(Elements));
	if (PG_ARGISNULL(arg))
		return false;
	array = PG_GETARG_ARRAYTYPE_P(arg);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be a one-dimensional array", name),
				 errdetail("It has %d dimensions.", ARR_NDIM(array))));
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &elements->values, &elements->nulls, &elements->n);
	if (expected >= 0 && elements->n != expected)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("the array %s has %d elements, but types has %d",
						name, elements->n, expected),
				 errhint("Element i of each array belongs to event i.")));
	for (int i = 0; !nulls_allowed && i < elements->n; i++)
		if (elements->nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s[%d] must not be null", name, i + 1)));
	return true;
}

static void
set_element(NewEvent *event, EventColumn column, Elements *elements, int i)
{
	event->nulls[column] = elements->values == NULL || elements->nulls[i];
	event->values[column] = event->nulls[column] ? (Datum) 0 : elements->values[i];
}
