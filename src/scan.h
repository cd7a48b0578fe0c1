/*
 * scan.h
 *	  Index scans over an event table.
 */
#ifndef ES_SCAN_H
#define ES_SCAN_H

#include "access/genam.h"
#include "access/sdir.h"
#include "event_table.h"
#include "executor/tuptable.h"

typedef struct EventScan
{
	Relation	index;
	LOCKMODE	lockmode;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} EventScan;

extern EventScan *es_scan_begin(EventTable *table, Oid indexid,
								Snapshot snapshot, int nkeys, ScanKey keys);
extern TupleTableSlot *es_scan_next(EventScan *scan, ScanDirection direction);
extern void es_scan_end(EventScan *scan);
extern void es_key_int64(ScanKey key, AttrNumber column,
						 StrategyNumber strategy, int64 value);
extern void es_key_text(ScanKey key, AttrNumber column, const text *value);
extern void es_key_text_above(ScanKey key, AttrNumber column, const text *value);
extern void es_key_text_below(ScanKey key, AttrNumber column, const text *value);
extern void es_key_uuid(ScanKey key, AttrNumber column, Datum value);

static inline Datum
es_slot_datum(TupleTableSlot *slot, EventTable *table, EventColumn column,
			  bool *isnull)
{
	return slot_getattr(slot, table->attnum[column], isnull);
}

static inline int64
es_slot_int64(TupleTableSlot *slot, EventTable *table, EventColumn column)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, table->attnum[column], &isnull));
}

#endif							/* ES_SCAN_H */
