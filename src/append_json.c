/*
 * append_json.c
 *	  append_json() and append_streams(): from JSON to the steps of an append.
 */
#include "postgres.h"

#include "append_steps.h"
#include "arguments.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "result.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_append_json);
PG_FUNCTION_INFO_V1(event_store_append_streams);

/* Above so many streams the table is locked, not each stream. */
#define MAX_STREAM_LOCKS	1000

/* What the error context names: element i of n of an array. */
typedef struct ElementContext
{
	const char *what;
	int			i;
	int			n;
	ErrorContextCallback callback;
} ElementContext;

static Jsonb *array_argument(FunctionCallInfo fcinfo, int arg, const char *name);
static void check_is_array(const JsonbValue *value, const char *name);
static void get_object(JsonbContainer *array, int i, const char *what, JsonbValue *object);
static void enter_array(ElementContext *context, const char *what, int n);
static void leave_array(ElementContext *context);
static void parse_events(StreamAppend *append, JsonbContainer *array);
static void parse_event(StreamAppend *append, NewEvent *event, JsonbContainer *object);
static void parse_streams(StreamAppend *streams, JsonbContainer *array, const char *what, bool events);
static bool is_key(const JsonbValue *key, const char *name);
pg_noreturn static void unknown_key(const JsonbValue *key, const char *known);
static char *scalar_string(const JsonbValue *value, const char *name, enum jbvType type);
static void parse_expected_version(StreamAppend *append, const JsonbValue *value);
static void check_streams_distinct(StreamAppend *streams, int nstreams);

Datum
event_store_append_json(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), RowExclusiveLock, ES_FOR_APPENDING);
	StreamAppend append = {.nevents = 0};

	append.stream = es_arg_stream(fcinfo, 1);
	append.check_version = !PG_ARGISNULL(3);
	if (append.check_version)
		es_check_expected_version(append.expected_version = PG_GETARG_INT64(3));
	parse_events(&append, &array_argument(fcinfo, 2, "events")->root);

	es_append(table, &append, 1);
	es_event_table_close(table);
	return es_append_result(fcinfo, &append);
}

Datum
event_store_append_streams(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			relid = es_arg_table(fcinfo);
	Jsonb	   *appends = array_argument(fcinfo, 1, "appends");
	Jsonb	   *checks = PG_ARGISNULL(2) ? NULL : array_argument(fcinfo, 2, "checks");
	int			nappends = JsonContainerSize(&appends->root);
	int			nchecks = checks ? JsonContainerSize(&checks->root) : 0;
	StreamAppend *streams;
	EventTable *table;

	/* The right to append first: the lock below is a strong one. */
	table = es_event_table_open(relid, AccessShareLock, ES_FOR_APPENDING);
	es_event_table_close(table);
	if (nappends == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there are no events to append"),
				 errdetail("The array appends is empty.")));

	streams = MemoryContextAllocExtended(CurrentMemoryContext,
										 sizeof(StreamAppend) * (Size) (nappends + nchecks),
										 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	parse_streams(streams, &appends->root, "appends", true);
	if (checks)
		parse_streams(streams + nappends, &checks->root, "checks", false);
	check_streams_distinct(streams, nappends + nchecks);
	for (int i = 1; i < nappends; i++)
		if (streams[i].ids_given != streams[0].ids_given)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event ids must be given for all events of a call or for none")));

	if (nappends + nchecks > MAX_STREAM_LOCKS)
		es_lock_table_exclusively(relid);
	table = es_event_table_open(relid, RowExclusiveLock, ES_FOR_APPENDING);
	es_append(table, streams, nappends + nchecks);
	es_event_table_close(table);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < nappends; i++)
	{
		Datum		values[1 + ES_APPEND_RESULT_COLUMNS];
		bool		nulls[1 + ES_APPEND_RESULT_COLUMNS] = {false};

		values[0] = PointerGetDatum(streams[i].stream);
		es_append_values(&streams[i], values + 1);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* The argument must be a JSON array. */
static Jsonb *
array_argument(FunctionCallInfo fcinfo, int arg, const char *name)
{
	Jsonb	   *json;
	JsonbValue	value;

	if (PG_ARGISNULL(arg))
		es_null_argument(name);
	json = PG_GETARG_JSONB_P(arg);
	if (JB_ROOT_IS_SCALAR(json))
		JsonbExtractScalar(&json->root, &value);
	else
	{
		value.type = jbvBinary;
		value.val.binary.data = &json->root;
	}
	check_is_array(&value, name);
	return json;
}

/* What a value is, for an error message. */
static const char *
describe_json(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return "null";
		case jbvString:
			return "a string";
		case jbvNumeric:
			return "a number";
		case jbvBool:
			return "a boolean";
		default:
			return JsonContainerIsArray(value->val.binary.data) ? "an array" : "an object";
	}
}

static void
check_is_array(const JsonbValue *value, const char *name)
{
	if (value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must be a JSON array, not %s", name, describe_json(value)),
			 value->type == jbvString
			 ? errhint("A string that contains JSON is not JSON: some drivers encode a value once more that is encoded already. Pass the array itself, or its text as a parameter of type text cast to jsonb.")
			 : value->type == jbvBinary
			 ? errhint("Wrap a single object in an array.") : 0));
}

/* Element i of an array of objects. */
static void
get_object(JsonbContainer *array, int i, const char *what, JsonbValue *object)
{
	*object = *getIthJsonbValueFromContainer(array, i);
	if (object->type == jbvBinary && JsonContainerIsObject(object->val.binary.data))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("each element of %s must be a JSON object, not %s", what, describe_json(object))));
}

static void
element_context(void *arg)
{
	ElementContext *context = arg;

	errcontext("element %d of %d of %s", context->i + 1, context->n, context->what);
}

static void
enter_array(ElementContext *context, const char *what, int n)
{
	context->what = what;
	context->i = 0;
	context->n = n;
	context->callback.callback = element_context;
	context->callback.arg = context;
	context->callback.previous = error_context_stack;
	error_context_stack = &context->callback;
}

static void
leave_array(ElementContext *context)
{
	error_context_stack = context->callback.previous;
}

static void
parse_events(StreamAppend *append, JsonbContainer *array)
{
	int			n = JsonContainerSize(array);
	ElementContext context;

	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there are no events to append"),
				 errdetail("The array events is empty.")));
	append->nevents = n;
	append->events = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(NewEvent) * (Size) n);
	enter_array(&context, "events", n);
	for (; context.i < n; context.i++)
	{
		NewEvent   *event = &append->events[context.i];
		JsonbValue	object;

		CHECK_FOR_INTERRUPTS();
		get_object(array, context.i, "events", &object);
		parse_event(append, event, object.val.binary.data);
		if (context.i == 0)
			append->ids_given = !event->nulls[ES_EVENT_ID];
		else if (append->ids_given == event->nulls[ES_EVENT_ID])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event ids must be given for all events of a call or for none")));
	}
	leave_array(&context);
}

static void
set_string(NewEvent *event, EventColumn column, const JsonbValue *value)
{
	char	   *string = scalar_string(value, es_columns[column].name,
									   column == ES_SCHEMA_VERSION ? jbvNumeric : jbvString);

	switch (es_columns[column].type)
	{
		case TEXTOID:
			event->values[column] = CStringGetTextDatum(string);
			break;
		case UUIDOID:
			event->values[column] = DirectFunctionCall1(uuid_in, CStringGetDatum(string));
			break;
		case INT4OID:
			event->values[column] = DirectFunctionCall1(int4in, CStringGetDatum(string));
			break;
		case TIMESTAMPTZOID:
			event->values[column] = DirectFunctionCall3(timestamptz_in, CStringGetDatum(string),
														ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
			break;
		default:
			elog(ERROR, "unexpected column %d", column);
	}
	event->nulls[column] = false;
}

static void
parse_event(StreamAppend *append, NewEvent *event, JsonbContainer *object)
{
	static const EventColumn keys[] = {
		ES_TYPE, ES_DATA, ES_EVENT_ID, ES_METADATA, ES_CORRELATION_ID,
		ES_CAUSATION_ID, ES_OCCURRED_AT, ES_SCHEMA_VERSION
	};
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbValue	key;
	JsonbValue	value;

	memset(event->nulls, true, sizeof(event->nulls));
	JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		int			k;

		JsonbIteratorNext(&iterator, &value, true);
		for (k = 0; k < (int) lengthof(keys) && !is_key(&key, es_columns[keys[k]].name); k++)
			;
		if (k == (int) lengthof(keys))
			unknown_key(&key, "type, data, event_id, metadata, correlation_id, causation_id, occurred_at and schema_version");
		if (value.type == jbvNull)
			continue;
		if (es_columns[keys[k]].type == JSONBOID)
		{
			event->values[keys[k]] = JsonbPGetDatum(JsonbValueToJsonb(&value));
			event->nulls[keys[k]] = false;
		}
		else
			set_string(event, keys[k], &value);
	}

	es_check_type(event->nulls[ES_TYPE] ? NULL : DatumGetTextPP(event->values[ES_TYPE]));
	if (event->nulls[ES_DATA])
		es_null_argument("data");
	if (event->nulls[ES_SCHEMA_VERSION])
	{
		event->values[ES_SCHEMA_VERSION] = Int32GetDatum(1);
		event->nulls[ES_SCHEMA_VERSION] = false;
	}
	es_check_schema_version(DatumGetInt32(event->values[ES_SCHEMA_VERSION]));
}

/* The elements of appends, which have events, or of checks, which have none. */
static void
parse_streams(StreamAppend *streams, JsonbContainer *array, const char *what, bool events)
{
	int			n = JsonContainerSize(array);
	ElementContext context;

	enter_array(&context, what, n);
	for (; context.i < n; context.i++)
	{
		StreamAppend *append = &streams[context.i];
		JsonbValue	object;
		JsonbIterator *iterator;
		JsonbValue	key;
		JsonbValue	value;

		get_object(array, context.i, what, &object);
		iterator = JsonbIteratorInit(object.val.binary.data);
		JsonbIteratorNext(&iterator, &key, true);
		while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
		{
			JsonbIteratorNext(&iterator, &value, true);
			if (is_key(&key, "stream"))
				append->stream = value.type == jbvNull ? NULL :
					cstring_to_text(scalar_string(&value, "stream", jbvString));
			else if (is_key(&key, "expected_version"))
				parse_expected_version(append, &value);
			else if (events && is_key(&key, "events"))
			{
				check_is_array(&value, "events");
				parse_events(append, value.val.binary.data);
			}
			else
				unknown_key(&key, events ? "stream, expected_version and events" : "stream and expected_version");
		}
		es_check_stream(append->stream);
		if (events && append->nevents == 0)
			es_null_argument("events");
		if (!events && !append->check_version)
			es_null_argument("expected_version");
	}
	leave_array(&context);
}

static bool
is_key(const JsonbValue *key, const char *name)
{
	return key->val.string.len == (int) strlen(name) &&
		memcmp(key->val.string.val, name, key->val.string.len) == 0;
}

static void
unknown_key(const JsonbValue *key, const char *known)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown key \"%s\"", pnstrdup(key->val.string.val, key->val.string.len)),
			 errdetail("The keys are %s.", known),
			 errhint("What belongs to the event itself goes into data, its context into metadata.")));
}

/* A scalar as a string; it must have that type. */
static char *
scalar_string(const JsonbValue *value, const char *name, enum jbvType type)
{
	if (value->type != type)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON %s, not %s", name,
						type == jbvString ? "string" : "number", describe_json(value))));
	if (type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
}

static void
parse_expected_version(StreamAppend *append, const JsonbValue *value)
{
	if (value->type == jbvNull)
		return;
	append->check_version = true;
	append->expected_version =
		DatumGetInt64(DirectFunctionCall1(int8in,
										  CStringGetDatum(scalar_string(value, "expected_version", jbvNumeric))));
	es_check_expected_version(append->expected_version);
}

static int
compare_streams(const void *a, const void *b)
{
	const text *x = (*(StreamAppend *const *) a)->stream;
	const text *y = (*(StreamAppend *const *) b)->stream;
	int			lx = VARSIZE_ANY_EXHDR(x);
	int			ly = VARSIZE_ANY_EXHDR(y);
	int			order = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(lx, ly));

	return order != 0 ? order : lx - ly;
}

static void
check_streams_distinct(StreamAppend *streams, int nstreams)
{
	StreamAppend **sorted = palloc(sizeof(StreamAppend *) * nstreams);

	for (int i = 0; i < nstreams; i++)
		sorted[i] = &streams[i];
	qsort(sorted, nstreams, sizeof(StreamAppend *), compare_streams);
	for (int i = 1; i < nstreams; i++)
		if (compare_streams(&sorted[i - 1], &sorted[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("stream \"%s\" is named more than once",
							text_to_cstring(sorted[i]->stream)),
					 errhint("Put all events of a stream into one element of appends; its expected_version is the check.")));
	pfree(sorted);
}
