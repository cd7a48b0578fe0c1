/*
 * parked.c
 *	  Events that projections have parked: event_store.projection_parked.
 *
 * Written by whoever has the partition, or the projection, locked.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "compat.h"
#include "own_tables.h"
#include "parked.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* The columns of event_store.projection_parked. */
enum
{
	PROJECTION,
	REBUILD,
	POSITION,
	EVENT_ID,
	STREAM,
	TYPE,
	ATTEMPTS,
	SQLSTATE,
	MESSAGE,
	CONTEXT,
	PARKED_AT,
	TRIED_AT,
	NUM_COLUMNS
};

/* In the order of their positions. */
List *
es_list_parked(const char *projection, bool rebuild)
{
	Relation	rel = table_open(es_own_table(ES_PARKED, false), AccessShareLock);
	SysScanDesc scan = es_scan_projection(rel, projection, rebuild ? ES_REBUILD_ROWS : ES_LIVE_ROWS);
	HeapTuple	tuple;
	List	   *parked = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[NUM_COLUMNS];
		bool		nulls[NUM_COLUMNS];
		ParkedEvent *event;

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		event = palloc0(sizeof(ParkedEvent));
		event->error.position = DatumGetInt64(values[POSITION]);
		event->error.event_id = *DatumGetUUIDP(values[EVENT_ID]);
		event->error.stream = TextDatumGetCString(values[STREAM]);
		event->error.type = TextDatumGetCString(values[TYPE]);
		event->error.sqlerrcode = nulls[SQLSTATE] ? 0 : 1;
		event->attempts = DatumGetInt32(values[ATTEMPTS]);
		event->parked_at = DatumGetTimestampTz(values[PARKED_AT]);
		parked = lappend(parked, event);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return parked;
}

static HeapTuple
form_row(Relation rel, const char *projection, bool rebuild, EventError *error, int attempts, TimestampTz parked_at)
{
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS] = {false};
	bool		waits = error->sqlerrcode == 0;

	values[PROJECTION] = CStringGetTextDatum(projection);
	values[REBUILD] = BoolGetDatum(rebuild);
	values[POSITION] = Int64GetDatum(error->position);
	values[EVENT_ID] = UUIDPGetDatum(&error->event_id);
	values[STREAM] = CStringGetTextDatum(error->stream);
	values[TYPE] = CStringGetTextDatum(error->type);
	values[ATTEMPTS] = Int32GetDatum(attempts);
	nulls[SQLSTATE] = nulls[MESSAGE] = waits;
	nulls[CONTEXT] = waits || error->context == NULL;
	if (!waits)
	{
		values[SQLSTATE] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
		values[MESSAGE] = CStringGetTextDatum(error->message);
	}
	if (!nulls[CONTEXT])
		values[CONTEXT] = CStringGetTextDatum(error->context);
	values[PARKED_AT] = TimestampTzGetDatum(parked_at);
	values[TRIED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

/* With sqlerrcode 0 the event waits behind another one of its stream, error->message does not matter. */
void
es_park(const char *projection, bool rebuild, EventError *error, int attempts)
{
	Relation	rel = table_open(es_own_table(ES_PARKED, false), RowExclusiveLock);

	CatalogTupleInsert(rel, form_row(rel, projection, rebuild, error, attempts, GetCurrentTimestamp()));
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
es_delete_parked_event(const char *projection, int64 position)
{
	Relation	rel = table_open(es_own_table(ES_PARKED, false), RowExclusiveLock);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;

	/* By all of the primary key: there may be very many. */
	ScanKeyEntryInitialize(&keys[0], 0, PROJECTION + 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, CStringGetTextDatum(projection));
	ScanKeyInit(&keys[1], REBUILD + 1, BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(false));
	ScanKeyInit(&keys[2], POSITION + 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(position));
	scan = systable_beginscan(rel, es_primary_key_index(rel), true, NULL, 3, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		CatalogTupleDelete(rel, &tuple->t_self);
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* It has been tried again, and failed again. */
void
es_note_parked_error(const char *projection, ParkedEvent *parked, EventError *error)
{
	Relation	rel = table_open(es_own_table(ES_PARKED, false), RowExclusiveLock);

	es_delete_parked_event(projection, parked->error.position);
	CatalogTupleInsert(rel, form_row(rel, projection, false, error, parked->attempts + 1, parked->parked_at));
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
es_delete_parked(const char *projection, bool rebuild)
{
	es_delete_projection_rows(ES_PARKED, projection, rebuild ? ES_REBUILD_ROWS : ES_LIVE_ROWS);
}

/* A rebuild takes the place of what was live. */
void
es_take_over_parked(const char *projection)
{
	Relation	rel = table_open(es_own_table(ES_PARKED, false), RowExclusiveLock);
	SysScanDesc scan;
	HeapTuple	tuple;

	es_delete_parked(projection, false);
	scan = es_scan_projection(rel, projection, ES_REBUILD_ROWS);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[NUM_COLUMNS] = {[REBUILD] = BoolGetDatum(false)};
		bool		nulls[NUM_COLUMNS] = {false};
		bool		replace[NUM_COLUMNS] = {[REBUILD] = true};

		CatalogTupleUpdate(rel, &tuple->t_self,
						   heap_modify_tuple(tuple, RelationGetDescr(rel), values, nulls, replace));
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}
