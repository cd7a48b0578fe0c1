/*
 * snapshot_policy.c
 *	  Snapshots that are folded here: take_snapshots(), verify_snapshots().
 *
 * They are taken by an explicit call, as the caller, who runs the reducer; not
 * by the background worker, which is a superuser and runs nobody's code.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "arguments.h"
#include "compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "load.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "read.h"
#include "snapshot.h"
#include "storage/lmgr.h"
#include "stream.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(event_store_take_snapshots);
PG_FUNCTION_INFO_V1(event_store_verify_snapshots);

/* The table is the first argument, the aggregate the second. */
static EventTable *
open_table(FunctionCallInfo fcinfo)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);

	if (PG_ARGISNULL(1))
		es_null_argument("aggregate");
	if (es_row_security_applies(table))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row-level security of table \"%s\" applies", RelationGetRelationName(table->rel)),
				 errdetail("A snapshot is the state after all events, of which policies may hide some."),
				 errtable(table->rel)));
	return table;
}

/*
 * The registry is locked first, so that the aggregate is not replaced before its
 * snapshots are there (see aggregate.c), and only then a snapshot is taken: in
 * an older one there may be saved states by an aggregate that is gone.
 */
Datum
event_store_take_snapshots(PG_FUNCTION_ARGS)
{
	EventTable *table = open_table(fcinfo);
	text	   *category = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);
	int64		max_count = es_arg_max_count(fcinfo, 3, PG_INT64_MAX);
	int64		count = 0;
	Aggregate  *aggregate;
	Load		load;
	StreamWalk	walk;
	text	   *stream;
	MemoryContext per_stream;

	PreventCommandIfReadOnly("take_snapshots()");
	PreventCommandIfParallelMode("take_snapshots()");
	LockRelationOid(es_own_table("aggregates", false), RowExclusiveLock);
	PushActiveSnapshot(GetLatestSnapshot());
	es_check_may_save(table, PG_GETARG_TEXT_PP(1));
	aggregate = es_get_aggregate(PG_GETARG_TEXT_PP(1), GetActiveSnapshot());
	if (aggregate->snapshot_every == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("aggregate \"%s\" has no snapshot_every", text_to_cstring(aggregate->name)),
				 errhint("Say how many events apart snapshots shall be: event_store.create_aggregate(..., snapshot_every => 100, or_replace => true).")));
	es_load_init(&load, table, aggregate);
	es_walk_streams(&walk, table, load.snapshot, category);
	per_stream = AllocSetContextCreate(CurrentMemoryContext, "event_store stream", ALLOCSET_DEFAULT_SIZES);
	while (count < max_count && (stream = es_next_stream(&walk)) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(per_stream);
		int64		version = es_newest_version(table, load.snapshot, stream, PG_INT64_MAX, NULL);
		SavedState	saved = es_find_snapshot(table, load.snapshot, stream, aggregate->name,
											 aggregate->schema_version, PG_INT64_MAX, version, false);

		if (version - saved.version >= aggregate->snapshot_every)
		{
			Loaded		loaded = es_load(&load, stream);

			es_save_snapshot(table, stream, aggregate->name, aggregate->schema_version,
							 loaded.version, loaded.state);
			count++;
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_stream);
	}
	PopActiveSnapshot();
	es_event_table_close(table);
	PG_RETURN_INT64(count);
}

/*
 * Goes through the snapshots of the table in the order of the primary key, and
 * folds each stream once, from its first event.
 */
Datum
event_store_verify_snapshots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	EventTable *table = open_table(fcinfo);
	Aggregate  *aggregate = es_get_aggregate(PG_GETARG_TEXT_PP(1), GetActiveSnapshot());
	Relation	rel = table_open(es_own_table("snapshots", false), AccessShareLock);
	Relation	index = index_open(es_primary_key_index(rel), AccessShareLock);
	MemoryContext per_stream;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Load		load;
	text	   *stream = NULL;
	Loaded		loaded;

	InitMaterializedSRF(fcinfo, 0);
	es_load_init(&load, table, aggregate);
	per_stream = AllocSetContextCreate(CurrentMemoryContext, "event_store stream", ALLOCSET_DEFAULT_SIZES);
	ScanKeyInit(&key, ES_SNAPSHOT_EVENT_TABLE, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(table->relid));
	scan = systable_beginscan_ordered(rel, index, load.snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		Datum		row[ES_SNAPSHOT_COLUMNS];
		bool		isnull[ES_SNAPSHOT_COLUMNS];
		int64		version;
		Datum		values[4];
		bool		nulls[4] = {false};
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(rel), row, isnull);
		if (DatumGetInt32(row[ES_SNAPSHOT_SCHEMA_VERSION - 1]) != aggregate->schema_version ||
			es_compare_texts(DatumGetTextPP(row[ES_SNAPSHOT_AGGREGATE - 1]), aggregate->name) != 0)
			continue;
		old = MemoryContextSwitchTo(per_stream);
		if (stream == NULL || es_compare_texts(DatumGetTextPP(row[ES_SNAPSHOT_STREAM - 1]), stream) != 0)
		{
			MemoryContextReset(per_stream);
			stream = DatumGetTextPCopy(row[ES_SNAPSHOT_STREAM - 1]);
			loaded = (Loaded) {.state = es_initial_state(load.reducer)};
		}
		version = DatumGetInt64(row[ES_SNAPSHOT_VERSION - 1]);
		es_fold_events(&load, stream, version, &loaded);

		values[0] = PointerGetDatum(stream);
		values[1] = Int64GetDatum(version);
		values[2] = row[ES_SNAPSHOT_STATE - 1];
		nulls[2] = isnull[ES_SNAPSHOT_STATE - 1];
		values[3] = loaded.state;
		nulls[3] = loaded.version != version;
		MemoryContextSwitchTo(load.reducer->econtext->ecxt_per_tuple_memory);
		if (nulls[2] || nulls[3] ||
			compareJsonbContainers(&DatumGetJsonbP(values[2])->root, &DatumGetJsonbP(values[3])->root) != 0)
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
		ResetExprContext(load.reducer->econtext);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	es_event_table_close(table);
	return (Datum) 0;
}
