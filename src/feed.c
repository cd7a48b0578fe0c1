/*
 * feed.c
 *	  Feeds: read_all(), read_category(), read_batch(), high_water_mark().
 *
 * The order of steps is what makes a feed lose nothing: the sequence's last
 * value, then the locks, then a fresh snapshot, then the rows (see README.md
 * beside this file).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "arguments.h"
#include "errors.h"
#include "event_json.h"
#include "feed.h"
#include "feed_marks.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "read.h"
#include "scan.h"
#include "storage/lmgr.h"
#include "test_hooks.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_high_water_mark);
PG_FUNCTION_INFO_V1(event_store_read_all);
PG_FUNCTION_INFO_V1(event_store_read_category);
PG_FUNCTION_INFO_V1(event_store_read_batch);

#define DEFAULT_MAX_COUNT	1000

/* read_batch() looks at so many events. */
#define BATCH_MAX_SCANNED	ES_ARRAY_MAX_EVENTS

/* See es_newest_event(). */
#define NEAR			8

static int64 high_water_mark(EventTable *table, int64 *last_value);
static int64 open_feed(FunctionCallInfo fcinfo, EventQuery *query);
static void close_feed(EventQuery *query);
static void set_bounds(EventQuery *query, FunctionCallInfo fcinfo, int64 mark,
					   int after, int before);
static void check_not_diverged(EventQuery *query, FunctionCallInfo fcinfo, int after, int after_event_id);
static Received add_to_batch(EventTable *table, TupleTableSlot *slot, void *arg);

Datum
event_store_high_water_mark(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	int64		mark = high_water_mark(table, NULL);

	es_event_table_close(table);
	PG_RETURN_INT64(mark);
}

Datum
event_store_read_all(PG_FUNCTION_ARGS)
{
	EventQuery	query;
	int64		mark = open_feed(fcinfo, &query);

	query.max_count = es_arg_max_count(fcinfo, 2, DEFAULT_MAX_COUNT);
	query.backward = es_arg_backward(fcinfo, 4);
	query.types = es_arg_text_set(fcinfo, 5, "types");
	query.categories = es_arg_text_set(fcinfo, 6, "categories");
	query.streams = es_arg_text_set(fcinfo, 7, "streams");
	query.correlation_id = PG_ARGISNULL(8) ? NULL : PG_GETARG_TEXT_PP(8);
	query.upcast = !es_arg_flag(fcinfo, 10);
	set_bounds(&query, fcinfo, mark, 1, 3);
	check_not_diverged(&query, fcinfo, 1, 9);
	es_return_events(fcinfo, &query);
	close_feed(&query);
	return (Datum) 0;
}

Datum
event_store_read_category(PG_FUNCTION_ARGS)
{
	EventQuery	query;
	int64		mark = open_feed(fcinfo, &query);

	if (PG_ARGISNULL(1))
		es_null_argument("category");
	query.category = PG_GETARG_TEXT_PP(1);
	query.max_count = es_arg_max_count(fcinfo, 3, DEFAULT_MAX_COUNT);
	query.backward = es_arg_backward(fcinfo, 5);
	query.types = es_arg_text_set(fcinfo, 6, "types");
	query.correlation_id = PG_ARGISNULL(7) ? NULL : PG_GETARG_TEXT_PP(7);
	query.upcast = !es_arg_flag(fcinfo, 9);
	set_bounds(&query, fcinfo, mark, 2, 4);
	check_not_diverged(&query, fcinfo, 2, 8);
	es_return_events(fcinfo, &query);
	close_feed(&query);
	return (Datum) 0;
}

Datum
event_store_read_batch(PG_FUNCTION_ARGS)
{
	EventQuery	query;
	int64		mark = open_feed(fcinfo, &query);
	int64		after = es_arg_int64(fcinfo, 1, 0);
	EventArray	batch;
	EventQueryResult progress;
	Checkpoint	checkpoint;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false};

	query.max_count = es_arg_max_count(fcinfo, 2, DEFAULT_MAX_COUNT);
	query.max_scanned = BATCH_MAX_SCANNED;
	query.types = es_arg_text_set(fcinfo, 3, "types");
	query.categories = es_arg_text_set(fcinfo, 4, "categories");
	query.streams = es_arg_text_set(fcinfo, 5, "streams");
	query.correlation_id = PG_ARGISNULL(6) ? NULL : PG_GETARG_TEXT_PP(6);
	query.upcast = !es_arg_flag(fcinfo, 8);
	set_bounds(&query, fcinfo, mark, 1, -1);
	check_not_diverged(&query, fcinfo, 1, 7);

	es_event_array_begin(&batch);
	progress = es_read_events(&query, add_to_batch, &batch);
	values[2] = es_event_array_end(&batch);

	/* Never below after, also where the mark is lower than it was. */
	checkpoint = es_newest_event(query.table, query.snapshot, Max(after, progress.complete ? mark : progress.last_scanned));
	values[0] = Int64GetDatum(Max(after, checkpoint.position));
	if (ES_BROKEN(ES_BREAK_CHECKPOINT_IS_MARK) && progress.complete)
		values[0] = Int64GetDatum(Max(after, mark));
	if (checkpoint.position >= after && checkpoint.position > 0)
		values[1] = UUIDPGetDatum(&checkpoint.event_id);
	else
	{
		nulls[1] = PG_ARGISNULL(7);
		values[1] = PG_GETARG_DATUM(7);
	}
	close_feed(&query);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Would es_feed_snapshot() return? */
bool
es_high_water_mark_known(EventTable *table)
{
	return !table->subscribed &&
		!(RecoveryInProgress() && es_recorded_mark(table->relid) < 0);
}

/*
 * A position up to which nothing can still appear in a snapshot taken from now
 * on.  First the sequence, then the locks: a writer that has drawn a position
 * up to that value has either announced itself before, or is done.  On a standby
 * it is what the primary has recorded.
 *
 * *last_value, if wanted, is the sequence's: what is above the mark is in flight.
 */
static int64
high_water_mark(EventTable *table, int64 *last_value)
{
	int64		mark;

	if (table->subscribed)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the feed of \"%s\" cannot be read: a logical subscription feeds the table",
						RelationGetRelationName(table->rel)),
				 errdetail("Its events arrive with positions that the publisher has drawn, not in their order."),
				 errhint("Read the feed on the publisher. Streams can be read here.")));
	if (RecoveryInProgress())
	{
		mark = es_recorded_mark(table->relid);
		if (mark < 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the feed of \"%s\" cannot be read on this standby",
							RelationGetRelationName(table->rel)),
					 errdetail("The primary has not recorded how far."),
					 errhint("It does so where shared_preload_libraries contains event_store, and event_store.standby_interval is not -1.")));
	}
	else
		mark = es_sequence_last_value(table->sequence, NULL);
	if (last_value)
		*last_value = mark;
	ES_POINT("after_sequence");

	/*
	 * Who keeps all appenders out has waited for them, and what they have done can be seen.  Some
	 * may still be about to release their other locks, which say nothing any more; and a
	 * projection that becomes inline must not stop before their events.
	 */
	if (!es_in_flight(table->relid) &&
		CheckRelationLockedByMe(table->rel, ShareRowExclusiveLock, true))
		return mark;
	return es_least_tag_in_flight(table->relid, mark);
}

/*
 * The mark first, then a snapshot newer than it, which is registered: in this order
 * nothing is lost.  Whoever delivers events, or says how far they go, begins here.
 */
Snapshot
es_feed_snapshot(EventTable *table, int64 *mark, int64 *last_value)
{
	Snapshot	snapshot = NULL;

	if (ES_BROKEN(ES_BREAK_MARK_AFTER_SNAPSHOT))
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	*mark = high_water_mark(table, last_value);
	ES_POINT("after_mark");
	return snapshot ? snapshot : RegisterSnapshot(GetLatestSnapshot());
}

static int64
open_feed(FunctionCallInfo fcinfo, EventQuery *query)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	int64		mark;
	Snapshot	snapshot;

	PreventCommandIfParallelMode("a feed");
	snapshot = es_feed_snapshot(table, &mark, NULL);
	es_query_init(query, table, snapshot);
	return mark;
}

static void
close_feed(EventQuery *query)
{
	UnregisterSnapshot(query->snapshot);
	es_event_table_close(query->table);
}

/* From the arguments after and before, both exclusive; before < 0: none. */
static void
set_bounds(EventQuery *query, FunctionCallInfo fcinfo, int64 mark, int after, int before)
{
	query->low = es_arg_int64(fcinfo, after, 0);
	if (query->low < PG_INT64_MAX)
		query->low++;
	query->high = mark;
	if (before >= 0 && !PG_ARGISNULL(before) && PG_GETARG_INT64(before) <= mark)
		query->high = Max(PG_GETARG_INT64(before), 0) - 1;
}

static Received
take_checkpoint(EventTable *table, TupleTableSlot *slot, void *arg)
{
	Checkpoint *checkpoint = arg;
	bool		isnull;

	checkpoint->position = es_slot_int64(slot, table, ES_POSITION);
	checkpoint->event_id = *DatumGetUUIDP(es_slot_datum(slot, table, ES_EVENT_ID, &isnull));
	checkpoint->recorded_at = DatumGetTimestampTz(es_slot_datum(slot, table, ES_RECORDED_AT, &isnull));
	return ES_ENOUGH;
}

/*
 * The newest existing event at or below a position.
 *
 * It mostly is that event, or near it.  Looking there first, the scan does not
 * look at a whole leaf page before it returns the last match.
 */
Checkpoint
es_newest_event(EventTable *table, Snapshot snapshot, int64 position)
{
	Checkpoint	checkpoint = {0};
	EventQuery	newest;

	es_query_init(&newest, table, snapshot);
	newest.backward = true;
	newest.high = position;
	if (position > NEAR && !es_row_security_applies(table))
	{
		newest.low = position - NEAR;
		es_read_events(&newest, take_checkpoint, &checkpoint);
		newest.low = PG_INT64_MIN;
	}
	if (checkpoint.position == 0)
		es_read_events(&newest, take_checkpoint, &checkpoint);
	return checkpoint;
}

/* The oldest existing event above a position. */
Checkpoint
es_next_event(EventTable *table, Snapshot snapshot, int64 position)
{
	Checkpoint	checkpoint = {0};
	EventQuery	next;

	es_query_init(&next, table, snapshot);
	next.low = position + 1;
	es_read_events(&next, take_checkpoint, &checkpoint);
	return checkpoint;
}

/* As of now: what a consumer that has read everything would save. */
Checkpoint
es_newest_checkpoint(EventTable *table)
{
	int64		mark;
	Snapshot	snapshot = es_feed_snapshot(table, &mark, NULL);
	Checkpoint	checkpoint = es_newest_event(table, snapshot, mark);

	UnregisterSnapshot(snapshot);
	return checkpoint;
}

static void
check_not_diverged(EventQuery *query, FunctionCallInfo fcinfo, int after, int after_event_id)
{
	Checkpoint	newest;
	int64		position = es_arg_int64(fcinfo, after, 0);
	pg_uuid_t  *expected;

	if (PG_ARGISNULL(after_event_id))
		return;
	expected = PG_GETARG_UUID_P(after_event_id);
	newest = es_newest_event(query->table, query->snapshot, position);
	if (newest.position == 0 || memcmp(&newest.event_id, expected, UUID_LEN) != 0)
		es_checkpoint_diverged(query->table, position, expected, newest);
}

static char *
uuid_text(pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

/*
 * After a point-in-time recovery, or a failover that lost events, a checkpoint
 * can be ahead of the log, or at an event that is now another.
 */
void
es_checkpoint_diverged(EventTable *table, int64 position, pg_uuid_t *expected, Checkpoint newest)
{
	ereport(ERROR,
			(errcode(ES_CHECKPOINT_DIVERGED),
			 errmsg("the checkpoint at position " INT64_FORMAT " is not of this event table's history",
					position),
			 newest.position == 0
			 ? errdetail("There is no event at or before it; event %s was expected.", uuid_text(expected))
			 : errdetail("The newest event at or before it is %s at position " INT64_FORMAT "; event %s was expected.",
						 uuid_text(&newest.event_id), newest.position, uuid_text(expected)),
			 RecoveryInProgress() && newest.position < position
			 ? errhint("This standby may not have got so far yet: try again later, or read on the primary.")
			 : errhint("The log has been restored to an earlier state, or this is another log. Rebuild what was derived from it, from an event that both have."),
			 errtable(table->rel)));
}

/* The batch ends before an event for which there is no room. */
static Received
add_to_batch(EventTable *table, TupleTableSlot *slot, void *arg)
{
	return es_event_array_add(arg, table, slot) ? ES_MORE : ES_FULL;
}
