/*
 * scan.c
 *	  Index scans over an event table, with the caller's snapshot.
 *
 * The event table stays locked by the caller.  Scans that an error interrupts are cleaned up by the resource
 * owner, as everywhere.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "compat.h"
#include "scan.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

EventScan *
es_scan_begin(EventTable *table, Oid indexid, Snapshot snapshot,
			  int nkeys, ScanKey keys)
{
	EventScan  *scan = palloc(sizeof(EventScan));

	scan->lockmode = table->lockmode;
	scan->index = index_open(indexid, table->lockmode);
	scan->slot = table_slot_create(table->rel, NULL);
	scan->scan = es_index_beginscan(table->rel, scan->index, snapshot, nkeys);
	index_rescan(scan->scan, keys, nkeys, NULL, 0);
	return scan;
}

/* The next row in that direction, NULL after the last. */
TupleTableSlot *
es_scan_next(EventScan *scan, ScanDirection direction)
{
	return index_getnext_slot(scan->scan, direction, scan->slot) ? scan->slot : NULL;
}

void
es_scan_end(EventScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	/* A writer will lock it again, and keeps the lock. */
	index_close(scan->index, scan->lockmode == AccessShareLock ? AccessShareLock : NoLock);
	pfree(scan);
}

/* A key on the index's column of that number, counted from 1. */
void
es_key_int64(ScanKey key, AttrNumber column, StrategyNumber strategy, int64 value)
{
	static const RegProcedure operators[] = {
		[BTLessStrategyNumber] = F_INT8LT,
		[BTLessEqualStrategyNumber] = F_INT8LE,
		[BTEqualStrategyNumber] = F_INT8EQ,
		[BTGreaterEqualStrategyNumber] = F_INT8GE,
		[BTGreaterStrategyNumber] = F_INT8GT,
	};

	ScanKeyInit(key, column, strategy, operators[strategy], Int64GetDatum(value));
}

static void
key_text(ScanKey key, AttrNumber column, StrategyNumber strategy,
		 RegProcedure operator, const text *value)
{
	ScanKeyEntryInitialize(key, 0, column, strategy, InvalidOid,
						   C_COLLATION_OID, operator, PointerGetDatum(value));
}

void
es_key_text(ScanKey key, AttrNumber column, const text *value)
{
	key_text(key, column, BTEqualStrategyNumber, F_TEXTEQ, value);
}

/* Exclusive bounds of a column with COLLATE "C". */
void
es_key_text_above(ScanKey key, AttrNumber column, const text *value)
{
	key_text(key, column, BTGreaterStrategyNumber, F_TEXT_GT, value);
}

void
es_key_text_below(ScanKey key, AttrNumber column, const text *value)
{
	key_text(key, column, BTLessStrategyNumber, F_TEXT_LT, value);
}

void
es_key_uuid(ScanKey key, AttrNumber column, Datum value)
{
	ScanKeyInit(key, column, BTEqualStrategyNumber, F_UUID_EQ, value);
}
