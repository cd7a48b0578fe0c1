/*
 * feed_marks.c
 *	  How far standbys can read: event_store.feed_marks.
 *
 * On a standby there are no in-flight locks to see.  So the worker on the
 * primary records the newest checkpoint of each event table in a table of ours.
 * Whatever it covers has committed before the record was written, and comes
 * before it in the WAL; so a snapshot that a standby takes after it has read the
 * record shows all of that.
 *
 * A row is inserted once, and from then on written in place: no dead rows, whose
 * removal would conflict with queries on the standby, no transaction id, and
 * nothing for logical decoding.  Readers hold the buffer's lock.
 *
 * All that happens past the executor, as with a catalog: no trigger or policy can
 * come between, no privileges are needed, and the worker, a superuser, runs
 * nobody's code.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "feed_marks.h"
#include "own_tables.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Columns. */
#define EVENT_TABLE		1
#define MARK			2
#define NUM_COLUMNS		3		/* recorded_at is the last one */

static Relation
open_marks(Oid relid, LOCKMODE lockmode, Oid event_table, ScanKey key)
{
	ScanKeyInit(key, EVENT_TABLE, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(event_table));
	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

static int64
mark_of(HeapTuple tuple, Relation rel)
{
	bool		isnull;

	return DatumGetInt64(heap_getattr(tuple, MARK, RelationGetDescr(rel), &isnull));
}

/* As of now, whatever the transaction's snapshot; -1: there is none. */
int64
es_recorded_mark(Oid event_table)
{
	ScanKeyData key;
	Relation	rel = open_marks(es_own_table("feed_marks", true), AccessShareLock, event_table, &key);
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	int64		mark = -1;

	if (rel == NULL)
		return -1;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, es_primary_key_index(rel), true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Buffer		buffer = ((BufferHeapTupleTableSlot *) scan->slot)->buffer;

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		mark = mark_of(tuple, rel);
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return mark;
}

/*
 * Records a checkpoint; one below the recorded one is not.  False if the table
 * cannot be had: it never waits, so as not to deadlock with DROP EXTENSION.
 * Only the worker calls this, and holds a lock on the event table.
 */
bool
es_record_mark(Oid event_table, int64 mark)
{
	Oid			relid = es_own_table("feed_marks", true);
	Datum		values[NUM_COLUMNS] = {ObjectIdGetDatum(event_table), Int64GetDatum(mark),
		TimestampTzGetDatum(GetCurrentTimestamp())};
	bool		nulls[NUM_COLUMNS] = {false, false, false};
	ScanKeyData key;
	Relation	rel;
	HeapTuple	old;
	HeapTuple	tuple;
	void	   *state;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	rel = open_marks(relid, NoLock, event_table, &key);
	if (rel == NULL)
		return false;
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	systable_inplace_update_begin(rel, es_primary_key_index(rel), true, NULL, 1, &key, &old, &state);
	if (!HeapTupleIsValid(old))
		CatalogTupleInsert(rel, tuple);
	else if (mark_of(old, rel) < mark)
	{
		tuple->t_self = old->t_self;
		systable_inplace_update_finish(state, tuple);
	}
	else
		systable_inplace_update_cancel(state);
	table_close(rel, NoLock);
	return true;
}

/* The event table is being dropped: nobody else can touch its row. */
void
es_forget_mark(Oid event_table)
{
	ScanKeyData key;
	Relation	rel = open_marks(es_own_table("feed_marks", true), RowExclusiveLock, event_table, &key);
	SysScanDesc scan;
	HeapTuple	tuple;

	if (rel == NULL)
		return;
	scan = systable_beginscan(rel, es_primary_key_index(rel), true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		CatalogTupleDelete(rel, &tuple->t_self);
	systable_endscan(scan);
	table_close(rel, NoLock);
}
