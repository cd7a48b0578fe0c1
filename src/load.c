/*
 * load.c
 *	  The state of a stream, now or in the past: load(), load_category().
 *
 * A fold reads the events of one index scan one by one, with the snapshot of
 * the calling statement.  It begins at the newest saved state that it may use,
 * and writes nothing: so it works on a standby.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "arguments.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "load.h"
#include "miscadmin.h"
#include "read.h"
#include "scan.h"
#include "snapshot.h"
#include "stream.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(event_store_load);
PG_FUNCTION_INFO_V1(event_store_load_category);

/*
 * A fold in progress.  Events are read some at a time, and then folded: to read
 * and to reduce in turns makes the processor's caches do twice the work.
 */
#define BATCH_EVENTS	64
#define BATCH_BYTES		65536

typedef struct Fold
{
	Reducer    *reducer;
	Loaded	   *loaded;
	MemoryContext context;		/* of the state */
	MemoryContext batch;		/* of these events */
	int			n;
	Size		bytes;
	Datum		events[BATCH_EVENTS];
	int64		version;		/* of the last one */
} Fold;

/* Events on their way into the order in which they occurred. */
typedef struct TimeSort
{
	Reducer    *reducer;
	TimestampTz until;
	Tuplesortstate *sort;
	TupleTableSlot *slot;		/* time, version, event */
} TimeSort;

static void init(Load *load, FunctionCallInfo fcinfo, int aggregate);
static void set_times(Load *load, FunctionCallInfo fcinfo, int as_of);
static void loaded_values(Loaded *loaded, Datum *values, bool *nulls);
static Received take_event(EventTable *table, TupleTableSlot *slot, void *arg);
static void fold_batch(Fold *fold);
static void fold_by_time(Load *load, text *stream, int64 up_to, Loaded *loaded);

Datum
event_store_load(PG_FUNCTION_ARGS)
{
	Load		load;
	Loaded		loaded;
	text	   *stream;
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4];

	init(&load, fcinfo, 2);
	stream = es_arg_stream(fcinfo, 1);
	load.at_version = es_arg_int64(fcinfo, 3, PG_INT64_MAX);
	if (load.at_version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at_version must not be negative, but is " INT64_FORMAT, load.at_version)));
	set_times(&load, fcinfo, 4);
	loaded = es_load(&load, stream);
	es_event_table_close(load.table);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	loaded_values(&loaded, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* A stream that had no event then was not there then. */
Datum
event_store_load_category(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Load		load;
	StreamWalk	walk;
	text	   *stream;
	MemoryContext per_stream;
	MemoryContext old;

	init(&load, fcinfo, 2);
	if (PG_ARGISNULL(1))
		es_null_argument("category");
	set_times(&load, fcinfo, 3);
	InitMaterializedSRF(fcinfo, 0);
	es_walk_streams(&walk, load.table, load.snapshot, PG_GETARG_TEXT_PP(1));
	per_stream = AllocSetContextCreate(CurrentMemoryContext, "event_store stream", ALLOCSET_DEFAULT_SIZES);
	while ((stream = es_next_stream(&walk)) != NULL)
	{
		Loaded		loaded;
		Datum		values[5] = {PointerGetDatum(stream)};
		bool		nulls[5] = {false};

		old = MemoryContextSwitchTo(per_stream);
		loaded = es_load(&load, stream);
		loaded_values(&loaded, values + 1, nulls + 1);
		if (loaded.version > 0)
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_stream);
	}
	es_event_table_close(load.table);
	return (Datum) 0;
}

/* The table is the first argument. */
static void
init(Load *load, FunctionCallInfo fcinfo, int aggregate)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);

	if (PG_ARGISNULL(aggregate))
		es_null_argument("aggregate");
	es_load_init(load, table, es_get_aggregate(PG_GETARG_TEXT_PP(aggregate), GetActiveSnapshot()));
}

/* The arguments as_of, occurred_as_of and use_snapshot. */
static void
set_times(Load *load, FunctionCallInfo fcinfo, int as_of)
{
	if (!PG_ARGISNULL(as_of))
	{
		load->as_of = palloc(sizeof(TimestampTz));
		*load->as_of = PG_GETARG_TIMESTAMPTZ(as_of);
	}
	if (!PG_ARGISNULL(as_of + 1))
	{
		load->occurred_as_of = palloc(sizeof(TimestampTz));
		*load->occurred_as_of = PG_GETARG_TIMESTAMPTZ(as_of + 1);
	}
	load->use_snapshot = PG_ARGISNULL(as_of + 2) || PG_GETARG_BOOL(as_of + 2);
}

/* In the order of the columns version, state, events_folded, snapshot_version. */
static void
loaded_values(Loaded *loaded, Datum *values, bool *nulls)
{
	values[0] = Int64GetDatum(loaded->version);
	values[1] = loaded->state;
	values[2] = Int64GetDatum(loaded->events_folded);
	values[3] = Int64GetDatum(loaded->snapshot_version);
	nulls[0] = nulls[1] = nulls[2] = false;
	nulls[3] = loaded->snapshot_version == 0;
}

/* For all events that the calling statement sees. */
void
es_load_init(Load *load, EventTable *table, Aggregate *aggregate)
{
	/* A reducer may load, too. */
	check_stack_depth();
	memset(load, 0, sizeof(Load));
	load->table = table;
	load->snapshot = GetActiveSnapshot();
	load->reducer = es_make_reducer(aggregate);
	load->at_version = PG_INT64_MAX;
	load->use_snapshot = true;
}

/*
 * The state of a stream, in the current memory context.
 *
 * A saved state is used if every event in it is to be folded; not for an
 * order of its own, and not where policies may hide events from the caller.
 */
Loaded
es_load(Load *load, text *stream)
{
	Aggregate  *aggregate = load->reducer->aggregate;
	int64		up_to = es_newest_version(load->table, load->snapshot, stream,
										  load->as_of ? PG_INT64_MAX : load->at_version, load->as_of);
	SavedState	saved = {0};
	Loaded		loaded = {0};

	up_to = Min(up_to, load->at_version);
	if (load->use_snapshot && !load->occurred_as_of && !es_row_security_applies(load->table))
		saved = es_find_snapshot(load->table, load->snapshot, stream, aggregate->name,
								 aggregate->schema_version,
								 load->as_of ? up_to : load->at_version, up_to, true);
	loaded.version = loaded.snapshot_version = saved.version;
	loaded.state = saved.version > 0 ? saved.state : es_initial_state(load->reducer);
	if (load->occurred_as_of)
		fold_by_time(load, stream, up_to, &loaded);
	else
		es_fold_events(load, stream, up_to, &loaded);
	return loaded;
}

/* Goes on with a fold whose state is in the current memory context. */
void
es_fold_events(Load *load, text *stream, int64 up_to, Loaded *loaded)
{
	EventQuery	query;
	Fold		fold = {.reducer = load->reducer,.loaded = loaded,.context = CurrentMemoryContext};

	if (up_to <= loaded->version)
		return;
	fold.batch = AllocSetContextCreate(CurrentMemoryContext, "event_store events", ALLOCSET_DEFAULT_SIZES);
	es_query_init(&query, load->table, load->snapshot);
	query.stream = stream;
	query.low = loaded->version + 1;
	query.high = up_to;
	query.upcast = true;
	es_read_events(&query, take_event, &fold);
	fold_batch(&fold);
	MemoryContextDelete(fold.batch);
}

/* merge() needs no event, but what it cannot merge it shall refuse by itself. */
static Received
take_event(EventTable *table, TupleTableSlot *slot, void *arg)
{
	Fold	   *fold = arg;
	MemoryContext old = MemoryContextSwitchTo(fold->context);
	Datum		event;

	fold->version = es_slot_int64(slot, table, ES_VERSION);
	if (es_merge_row(fold->reducer, &fold->loaded->state, table, slot))
	{
		fold->loaded->version = fold->version;
		fold->loaded->events_folded++;
	}
	else
	{
		MemoryContextSwitchTo(fold->batch);
		event = es_event_datum(fold->reducer, table, slot);
		fold->bytes += VARSIZE(DatumGetPointer(event));
		fold->events[fold->n++] = event;
		if (fold->n == BATCH_EVENTS || fold->bytes >= BATCH_BYTES || fold->reducer->is_merge)
			fold_batch(fold);
	}
	MemoryContextSwitchTo(old);
	return ES_MORE;
}

static void
fold_batch(Fold *fold)
{
	Loaded	   *loaded = fold->loaded;
	MemoryContext old = MemoryContextSwitchTo(fold->context);

	if (fold->n > 0)
		loaded->version = fold->version;
	for (int i = 0; i < fold->n; i++)
		loaded->state = es_reduce(fold->reducer, loaded->state, fold->events[i]);
	loaded->events_folded += fold->n;
	fold->n = 0;
	fold->bytes = 0;
	MemoryContextReset(fold->batch);
	MemoryContextSwitchTo(old);
}

static Received
sort_event(EventTable *table, TupleTableSlot *slot, void *arg)
{
	TimeSort   *times = arg;
	MemoryContext old;
	Datum		time;
	bool		isnull;

	time = es_slot_datum(slot, table, ES_OCCURRED_AT, &isnull);
	if (isnull)
		time = es_slot_datum(slot, table, ES_RECORDED_AT, &isnull);
	if (DatumGetTimestampTz(time) > times->until)
		return ES_MORE;
	old = MemoryContextSwitchTo(times->reducer->econtext->ecxt_per_tuple_memory);
	ExecClearTuple(times->slot);
	times->slot->tts_values[0] = time;
	times->slot->tts_values[1] = es_slot_datum(slot, table, ES_VERSION, &isnull);
	times->slot->tts_values[2] = es_event_datum(times->reducer, table, slot);
	memset(times->slot->tts_isnull, false, 3);
	ExecStoreVirtualTuple(times->slot);
	tuplesort_puttupleslot(times->sort, times->slot);
	ExecClearTuple(times->slot);
	MemoryContextSwitchTo(old);
	ResetExprContext(times->reducer->econtext);
	return ES_MORE;
}

/* Folds what had occurred by then, in the order in which it occurred. */
static void
fold_by_time(Load *load, text *stream, int64 up_to, Loaded *loaded)
{
	Oid			event_type = load->reducer->event_type->tdtypeid;
	TupleDesc	desc = CreateTemplateTupleDesc(3);
	AttrNumber	columns[] = {1, 2};
	Oid			operators[] = {lookup_type_cache(TIMESTAMPTZOID, TYPECACHE_LT_OPR)->lt_opr, Int8LessOperator};
	Oid			collations[] = {InvalidOid, InvalidOid};
	bool		nulls_first[] = {false, false};
	TimeSort	times = {.reducer = load->reducer,.until = *load->occurred_as_of};
	TupleTableSlot *slot;
	EventQuery	query;

	TupleDescInitEntry(desc, 1, "occurred", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(desc, 2, "version", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 3, "event", event_type, -1, 0);
	times.sort = tuplesort_begin_heap(desc, 2, columns, operators, collations, nulls_first,
									  work_mem, NULL, TUPLESORT_NONE);
	times.slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	es_query_init(&query, load->table, load->snapshot);
	query.stream = stream;
	query.high = up_to;
	query.upcast = true;
	es_read_events(&query, sort_event, &times);
	tuplesort_performsort(times.sort);

	slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	while (tuplesort_gettupleslot(times.sort, true, false, slot, NULL))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		loaded->version = Max(loaded->version, DatumGetInt64(slot_getattr(slot, 2, &isnull)));
		loaded->state = es_reduce(load->reducer, loaded->state, slot_getattr(slot, 3, &isnull));
		loaded->events_folded++;
	}
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(times.slot);
	tuplesort_end(times.sort);
}
