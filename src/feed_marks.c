/*
 * feed_marks.c
 *	  How far standbys can read: event_store.feed_marks.
 *
 * On a standby there are no in-flight locks to see.  So the worker on the
 * primary records the newest checkpoint of each event table in a table of ours.
 * Whatever it covers has committed before the record was written, and comes
 * before it in the WAL; so a snapshot on a standby that shows the record shows
 * all of that too.
 *
 * The rows are read and written past the executor, as those of a catalog: no
 * trigger or policy can come between, no privileges are needed, and the worker,
 * a superuser, runs nobody's code.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "feed_marks.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

enum
{
	EVENT_TABLE = 1,
	MARK,
	RECORDED_AT
};

/* One row, or none; the table is open if it exists. */
typedef struct MarkScan
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
} MarkScan;

static Oid
marks_table(void)
{
	Oid			schema = get_namespace_oid("event_store", true);

	return OidIsValid(schema) ? get_relname_relid("feed_marks", schema) : InvalidOid;
}

static bool
find_mark(MarkScan *mark, Oid event_table, LOCKMODE lockmode, Snapshot snapshot)
{
	Oid			relid = marks_table();
	ScanKeyData key;

	mark->rel = OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
	if (mark->rel == NULL)
		return false;
	ScanKeyInit(&key, EVENT_TABLE, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(event_table));
	mark->scan = systable_beginscan(mark->rel, RelationGetPrimaryKeyIndex(mark->rel), true,
									snapshot, 1, &key);
	mark->tuple = systable_getnext(mark->scan);
	return true;
}

static void
end_scan(MarkScan *mark, LOCKMODE lockmode)
{
	systable_endscan(mark->scan);
	table_close(mark->rel, lockmode);
}

static int64
mark_of(MarkScan *mark)
{
	bool		isnull;

	return DatumGetInt64(heap_getattr(mark->tuple, MARK, RelationGetDescr(mark->rel), &isnull));
}

/* As of now, whatever the transaction's snapshot; -1: there is none. */
int64
es_recorded_mark(Oid event_table)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MarkScan	found;
	int64		mark = -1;

	if (find_mark(&found, event_table, AccessShareLock, snapshot))
	{
		if (HeapTupleIsValid(found.tuple))
			mark = mark_of(&found);
		end_scan(&found, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
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
	Oid			relid = marks_table();
	MarkScan	found;
	Datum		values[] = {ObjectIdGetDatum(event_table), Int64GetDatum(mark),
		TimestampTzGetDatum(GetCurrentTimestamp())};
	bool		nulls[] = {false, false, false};
	HeapTuple	tuple;

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, RowExclusiveLock) ||
		!find_mark(&found, event_table, NoLock, SnapshotSelf))
		return false;
	tuple = heap_form_tuple(RelationGetDescr(found.rel), values, nulls);
	if (!HeapTupleIsValid(found.tuple))
		CatalogTupleInsert(found.rel, tuple);
	else if (mark_of(&found) < mark)
		CatalogTupleUpdate(found.rel, &found.tuple->t_self, tuple);
	end_scan(&found, NoLock);
	return true;
}

/* The event table is being dropped: nobody else can touch its row. */
void
es_forget_mark(Oid event_table)
{
	MarkScan	found;

	if (!find_mark(&found, event_table, RowExclusiveLock, SnapshotSelf))
		return;
	if (HeapTupleIsValid(found.tuple))
		CatalogTupleDelete(found.rel, &found.tuple->t_self);
	end_scan(&found, NoLock);
}
