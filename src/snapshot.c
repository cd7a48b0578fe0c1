/*
 * snapshot.c
 *	  Saved states of streams: save_snapshot(), load_snapshot(),
 *	  prune_snapshots(), read_stream_from_snapshot().
 *
 * They live in event_store.snapshots, which only these functions reach: they
 * check the caller's rights on the event table first.  They read past the
 * executor, by the primary key, and write by SQL as that table's owner.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "aggregate.h"
#include "arguments.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "event_json.h"
#include "event_table.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "read.h"
#include "scan.h"
#include "snapshot.h"
#include "stream.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(event_store_save_snapshot);
PG_FUNCTION_INFO_V1(event_store_load_snapshot);
PG_FUNCTION_INFO_V1(event_store_prune_snapshots);
PG_FUNCTION_INFO_V1(event_store_read_stream_from_snapshot);

static uint64 run_as_owner(const char *sql, int expected, int nargs, Oid *types,
						   Datum *values, const char *nulls);

static text *
arg_aggregate(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		es_null_argument("aggregate");
	return PG_GETARG_TEXT_PP(arg);
}

/*
 * Whoever can write a snapshot can falsify the state that others load; but the
 * owner of an aggregate can do so anyway, by its reducer.
 */
void
es_check_may_save(EventTable *table, const text *aggregate)
{
	Aggregate  *registered;

	if (es_is_table_owner(table->relid, GetUserId()))
		return;
	registered = aggregate ? es_find_aggregate(aggregate, GetActiveSnapshot()) : NULL;
	if (registered == NULL || !es_is_aggregate_owner(registered))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(table->rel));
}

static Received
note_existence(EventTable *table, TupleTableSlot *slot, void *arg)
{
	*(bool *) arg = true;
	return ES_ENOUGH;
}

Datum
event_store_save_snapshot(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	text	   *aggregate = arg_aggregate(fcinfo, 4);
	EventQuery	query;
	bool		exists = false;
	int64		version;

	es_check_may_save(table, aggregate);
	es_query_init(&query, table, GetActiveSnapshot());
	query.stream = es_arg_stream(fcinfo, 1);
	if (PG_ARGISNULL(2))
		es_null_argument("version");
	query.low = query.high = version = PG_GETARG_INT64(2);
	if (PG_ARGISNULL(3))
		es_null_argument("state");
	if (PG_ARGISNULL(5))
		es_null_argument("schema_version");
	es_read_events(&query, note_existence, &exists);
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no version " INT64_FORMAT,
						text_to_cstring(query.stream), version),
				 errhint("A snapshot is the state after an event that exists."),
				 errtable(table->rel)));
	es_save_snapshot(table, query.stream, aggregate, PG_GETARG_INT32(5), version, PG_GETARG_DATUM(3));
	es_event_table_close(table);
	PG_RETURN_VOID();
}

/* In place of one of the same version. */
void
es_save_snapshot(EventTable *table, text *stream, text *aggregate,
				 int32 schema_version, int64 version, Datum state)
{
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID, INT4OID, INT8OID, JSONBOID};
	Datum		values[] = {ObjectIdGetDatum(table->relid), PointerGetDatum(stream),
		PointerGetDatum(aggregate), Int32GetDatum(schema_version), Int64GetDatum(version), state};

	run_as_owner("INSERT INTO event_store.snapshots AS s"
				 " (event_table, stream, aggregate, schema_version, version, state)"
				 " VALUES ($1, $2, $3, $4, $5, $6)"
				 " ON CONFLICT (event_table, stream, aggregate, schema_version, version)"
				 " DO UPDATE SET state = EXCLUDED.state, saved_at = EXCLUDED.saved_at",
				 SPI_OK_INSERT, 6, types, values, NULL);
}

/*
 * The newest state up to max_version, in the current memory context.  One that
 * is not of the stream as it is, whose last version is given, does not count.
 */
SavedState
es_find_snapshot(EventTable *table, Snapshot snapshot, text *stream,
				 text *aggregate, int32 schema_version,
				 int64 max_version, int64 stream_version, bool with_state)
{
	Relation	rel = table_open(es_own_table("snapshots", false), AccessShareLock);
	Relation	index = index_open(es_primary_key_index(rel), AccessShareLock);
	ScanKeyData keys[5];
	SysScanDesc scan;
	HeapTuple	tuple;
	SavedState	saved = {0};

	ScanKeyInit(&keys[0], ES_SNAPSHOT_EVENT_TABLE, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table->relid));
	ScanKeyInit(&keys[1], ES_SNAPSHOT_STREAM, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(stream));
	ScanKeyInit(&keys[2], ES_SNAPSHOT_AGGREGATE, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(aggregate));
	ScanKeyInit(&keys[3], ES_SNAPSHOT_SCHEMA_VERSION, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(schema_version));
	ScanKeyInit(&keys[4], ES_SNAPSHOT_VERSION, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(max_version));
	scan = systable_beginscan_ordered(rel, index, snapshot, 5, keys);
	while (saved.version == 0 &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(scan, BackwardScanDirection)))
	{
		bool		isnull;
		int64		version = DatumGetInt64(heap_getattr(tuple, ES_SNAPSHOT_VERSION, RelationGetDescr(rel), &isnull));
		Datum		state = heap_getattr(tuple, ES_SNAPSHOT_STATE, RelationGetDescr(rel), &isnull);

		if (isnull || version > stream_version)
		{
			ereport(WARNING,
					(errmsg("the snapshot of stream \"%s\" at version " INT64_FORMAT " is ignored",
							text_to_cstring(stream), version),
					 isnull ? errdetail("It has no state.") :
					 errdetail("The stream ends at version " INT64_FORMAT ".", stream_version),
					 errhint("event_store.prune_snapshots(..., keep => 0) deletes it and all others; event_store.take_snapshots() makes new ones."),
					 errtable(table->rel)));
			continue;
		}
		saved.version = version;
		if (with_state)
			saved.state = PointerGetDatum(PG_DETOAST_DATUM_COPY(state));
		saved.saved_at = heap_getattr(tuple, ES_SNAPSHOT_SAVED_AT, RelationGetDescr(rel), &isnull);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return saved;
}

/* The newest that the caller may use.  It tells of events that policies may hide. */
static SavedState
newest_snapshot(EventTable *table, text *stream, text *aggregate,
				int32 schema_version, int64 max_version)
{
	Snapshot	snapshot = GetActiveSnapshot();

	if (es_row_security_applies(table))
		return (SavedState) {0};
	return es_find_snapshot(table, snapshot, stream, aggregate, schema_version, max_version,
							es_newest_version(table, snapshot, stream, PG_INT64_MAX, NULL), true);
}

Datum
event_store_load_snapshot(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	text	   *stream;
	SavedState	saved;

	if (PG_ARGISNULL(4))
		es_null_argument("schema_version");
	stream = es_arg_stream(fcinfo, 1);
	saved = newest_snapshot(table, stream, arg_aggregate(fcinfo, 2), PG_GETARG_INT32(4),
							es_arg_int64(fcinfo, 3, PG_INT64_MAX));
	InitMaterializedSRF(fcinfo, 0);
	if (saved.version > 0)
	{
		Datum		values[] = {Int64GetDatum(saved.version), saved.state, saved.saved_at};
		bool		nulls[] = {false, false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	es_event_table_close(table);
	return (Datum) 0;
}

/* What is read on from a saved state. */
typedef struct Rest
{
	EventArray	events;
	int64		version;
} Rest;

static Received
add_event(EventTable *table, TupleTableSlot *slot, void *arg)
{
	Rest	   *rest = arg;

	if (!es_event_array_add(&rest->events, table, slot))
		return ES_FULL;
	rest->version = es_slot_int64(slot, table, ES_VERSION);
	return ES_MORE;
}

/* All of it or an error: a part would be taken for the whole. */
Datum
event_store_read_stream_from_snapshot(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	EventQuery	query;
	SavedState	saved;
	Rest		rest;
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};

	es_query_init(&query, table, GetActiveSnapshot());
	query.stream = es_arg_stream(fcinfo, 1);
	if (PG_ARGISNULL(3))
		es_null_argument("schema_version");
	saved = newest_snapshot(table, query.stream, arg_aggregate(fcinfo, 2), PG_GETARG_INT32(3), PG_INT64_MAX);
	rest.version = saved.version;
	query.low = saved.version + 1;
	query.upcast = true;
	es_event_array_begin(&rest.events);
	if (!es_read_events(&query, add_event, &rest).complete)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("stream \"%s\" has too many events after version " INT64_FORMAT " for one row",
						text_to_cstring(query.stream), saved.version),
				 errdetail("It has room for %d events, or about %d MB of data, and is full at version " INT64_FORMAT ".",
						   ES_ARRAY_MAX_EVENTS, ES_ARRAY_MAX_BYTES / (1024 * 1024), rest.version),
				 errhint("Save a newer snapshot, or read on from load_snapshot() with read_stream()."),
				 errtable(table->rel)));
	es_event_table_close(table);

	nulls[0] = nulls[1] = saved.version == 0;
	values[0] = Int64GetDatum(saved.version);
	values[1] = saved.state;
	values[2] = Int64GetDatum(rest.version);
	values[3] = es_event_array_end(&rest.events);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
event_store_prune_snapshots(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	Oid			types[] = {OIDOID, TEXTOID, INT4OID};
	Datum		values[] = {ObjectIdGetDatum(table->relid), PG_GETARG_DATUM(2), PG_GETARG_DATUM(1)};
	uint64		pruned;

	if (PG_ARGISNULL(1))
		es_null_argument("keep");
	if (PG_GETARG_INT32(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keep must not be negative, but is %d", PG_GETARG_INT32(1))));
	es_check_may_save(table, PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2));
	pruned = run_as_owner("DELETE FROM event_store.snapshots s"
						  " USING (SELECT n.ctid AS place, a.schema_version AS present,"
						  " pg_catalog.row_number() OVER (PARTITION BY n.stream, n.aggregate, n.schema_version ORDER BY n.version DESC) AS rank"
						  " FROM event_store.snapshots n"
						  " LEFT JOIN event_store.aggregates a ON a.name OPERATOR(pg_catalog.=) n.aggregate"
						  " WHERE n.event_table OPERATOR(pg_catalog.=) $1"
						  " AND ($2 IS NULL OR n.aggregate OPERATOR(pg_catalog.=) $2)) o"
						  " WHERE s.ctid OPERATOR(pg_catalog.=) o.place"
						  " AND (o.rank OPERATOR(pg_catalog.>) $3"
						  " OR o.present OPERATOR(pg_catalog.<>) s.schema_version)",
						  SPI_OK_DELETE, 3, types, values, PG_ARGISNULL(2) ? " n " : NULL);
	es_event_table_close(table);
	PG_RETURN_INT64(pruned);
}

/*
 * Somebody else's states must not come into the hands of an aggregate's owner
 * by its name.
 */
void
es_check_snapshots_are_own(const text *aggregate)
{
	Oid			types[] = {TEXTOID, OIDOID};
	Datum		values[] = {PointerGetDatum(aggregate), ObjectIdGetDatum(GetUserId())};

	if (run_as_owner("SELECT FROM event_store.snapshots s, pg_catalog.pg_class c"
					 " WHERE s.aggregate OPERATOR(pg_catalog.=) $1"
					 " AND c.oid OPERATOR(pg_catalog.=) s.event_table"
					 " AND NOT pg_catalog.pg_has_role($2, c.relowner, 'USAGE') LIMIT 1",
					 SPI_OK_SELECT, 2, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for snapshots of aggregate \"%s\"", text_to_cstring(aggregate)),
				 errdetail("Others have saved snapshots under this name, of event tables that you do not own."),
				 errhint("Take another name.")));
}

/* An aggregate is gone, and with it all of its states. */
void
es_forget_aggregate_snapshots(const text *aggregate)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(aggregate)};

	run_as_owner("DELETE FROM event_store.snapshots s"
				 " WHERE s.aggregate OPERATOR(pg_catalog.=) $1",
				 SPI_OK_DELETE, 1, types, values, NULL);
}

/* An event table is gone, and with it its snapshots. */
void
es_forget_snapshots(Oid event_table)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(event_table)};

	if (OidIsValid(es_own_table("snapshots", true)))
		run_as_owner("DELETE FROM event_store.snapshots s"
					 " WHERE s.event_table OPERATOR(pg_catalog.=) $1",
					 SPI_OK_DELETE, 1, types, values, NULL);
}

/* One statement; how many rows it found or changed. */
static uint64
run_as_owner(const char *sql, int expected, int nargs, Oid *types,
			 Datum *values, const char *nulls)
{
	SavedUser	saved;
	uint64		count;

	es_become_owner_of(es_own_table("snapshots", false), &saved);
	SPI_connect();
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0) != expected)
		elog(ERROR, "unexpected result of: %s", sql);
	count = SPI_processed;
	SPI_finish();
	es_become_again(&saved);
	return count;
}
