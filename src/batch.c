/*
 * batch.c
 *	  Batches of events, as rows of type event_store.event.
 *
 * In a tuple store, which an SQL statement can read as a table.  It may take as much
 * memory as maintenance does; a batch that begins to go to disk is large enough.  It
 * lives in the current memory context.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "aggregate.h"
#include "batch.h"
#include "miscadmin.h"
#include "scan.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

/* 00-<32 digits>-<16 digits>-00 */
#define TRACEPARENT_LENGTH	55
#define TRACE_ID_LENGTH		32

static char *trace_id(Jsonb *metadata);

EventBatch *
es_batch_begin(void)
{
	EventBatch *batch = palloc0(sizeof(EventBatch));
	MemoryContext old;

	/* A copy of this moment's: the type can be altered. */
	batch->desc = lookup_rowtype_tupdesc_copy(es_event_type(), -1);
	if (batch->desc->natts != ES_NUM_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the type event_store.event has been altered")));
	/* Many pieces of about one size, which all go at once. */
	batch->context = GenerationContextCreate(CurrentMemoryContext, "event batch", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(batch->context);
	batch->events = tuplestore_begin_heap(true, false, Max(work_mem, maintenance_work_mem));
	batch->slot = MakeSingleTupleTableSlot(batch->desc, &TTSOpsMinimalTuple);
	MemoryContextSwitchTo(old);
	return batch;
}

/* Receives events that are read; arg is the batch. */
Received
es_batch_add(EventTable *table, TupleTableSlot *slot, void *arg)
{
	EventBatch *batch = arg;
	Datum		values[ES_NUM_COLUMNS];
	bool		nulls[ES_NUM_COLUMNS];

	if (table->plain)
		tuplestore_puttupleslot(batch->events, slot);
	else
	{
		for (int i = 0; i < ES_NUM_COLUMNS; i++)
			values[i] = es_slot_datum(slot, table, i, &nulls[i]);
		tuplestore_putvalues(batch->events, batch->desc, values, nulls);
	}
	batch->count++;
	return tuplestore_in_memory(batch->events) ? ES_MORE : ES_ENOUGH;
}

/* Reads the n-th event into the slot, counted from 0; false if there is none. */
bool
es_batch_seek(EventBatch *batch, int64 n)
{
	tuplestore_rescan(batch->events);
	return n < batch->count && (n == 0 || tuplestore_skiptuples(batch->events, n, true)) &&
		es_batch_next(batch);
}

/*
 * Reads the next one.  What comes from disk belongs to the slot: so it must not be in the
 * memory of a subtransaction, which may be rolled back.
 */
bool
es_batch_next(EventBatch *batch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	bool		found = tuplestore_gettupleslot(batch->events, true, false, batch->slot);

	MemoryContextSwitchTo(old);
	return found;
}

/* A batch of some of the events of another one. */
EventBatch *
es_batch_slice(EventBatch *batch, int64 from, int64 to)
{
	EventBatch *slice = es_batch_begin();

	if (from < to && es_batch_seek(batch, from))
		do
			tuplestore_puttupleslot(slice->events, batch->slot);
		while (++slice->count < to - from && es_batch_next(batch));
	return slice;
}

void
es_batch_end(EventBatch *batch)
{
	ExecDropSingleTupleTableSlot(batch->slot);
	if (!tuplestore_in_memory(batch->events))
		tuplestore_end(batch->events);
	MemoryContextDelete(batch->context);
}

/* Which event it is, for messages and lists of errors. */
void
es_describe_event(TupleTableSlot *slot, EventError *error)
{
	bool		isnull;
	Datum		metadata;

	error->position = DatumGetInt64(slot_getattr(slot, ES_POSITION + 1, &isnull));
	error->event_id = *DatumGetUUIDP(slot_getattr(slot, ES_EVENT_ID + 1, &isnull));
	error->stream = TextDatumGetCString(slot_getattr(slot, ES_STREAM + 1, &isnull));
	error->type = TextDatumGetCString(slot_getattr(slot, ES_TYPE + 1, &isnull));
	metadata = slot_getattr(slot, ES_METADATA + 1, &isnull);
	error->trace_id = isnull ? NULL : trace_id(DatumGetJsonbP(metadata));
}

/* Of the W3C's traceparent in the metadata, if it is a valid one. */
static char *
trace_id(Jsonb *metadata)
{
	JsonbValue	value;
	const char *s;

	if (!JB_ROOT_IS_OBJECT(metadata) ||
		getKeyJsonValueFromContainer(&metadata->root, "traceparent", strlen("traceparent"), &value) == NULL ||
		value.type != jbvString || value.val.string.len < TRACEPARENT_LENGTH)
		return NULL;
	s = value.val.string.val;
	for (int i = 0; i < TRACEPARENT_LENGTH; i++)
		if ((i == 2 || i == 35 || i == 52) ? s[i] != '-' : strchr("0123456789abcdef", s[i]) == NULL)
			return NULL;
	/* Later versions may be longer; version ff is none. */
	if (strncmp(s, "ff", 2) == 0 ||
		(value.val.string.len > TRACEPARENT_LENGTH && (strncmp(s, "00", 2) == 0 || s[TRACEPARENT_LENGTH] != '-')) ||
		strspn(s + 3, "0") >= TRACE_ID_LENGTH || strspn(s + 36, "0") >= 16)
		return NULL;
	return pnstrdup(s + 3, TRACE_ID_LENGTH);
}

/* For an error context callback. */
void
es_event_context(TupleTableSlot *slot, const char *projection)
{
	EventError	event;
	const char *id;

	es_describe_event(slot, &event);
	id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&event.event_id)));
	if (event.trace_id)
		errcontext("event %s at position " INT64_FORMAT " (stream \"%s\", type \"%s\", trace %s) in projection \"%s\"",
				   id, event.position, event.stream, event.type, event.trace_id, projection);
	else
		errcontext("event %s at position " INT64_FORMAT " (stream \"%s\", type \"%s\") in projection \"%s\"",
				   id, event.position, event.stream, event.type, projection);
}
