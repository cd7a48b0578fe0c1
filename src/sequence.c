/*
 * sequence.c
 *	  The sequence that positions are drawn from, by its page.
 *
 * nextval() gives out one value at a time, and to take the page for each costs a
 * batch as much as the heap does.  es_sequence_draw() gives out many at once, in
 * the way in which nextval() fills the cache of a sequence with CACHE n: the same
 * change of the same page, and the same WAL record.  Nothing is cached: the
 * caller uses all of them, or leaves gaps.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "compat.h"
#include "event_table.h"
#include "miscadmin.h"
#include "sequence.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* As in PostgreSQL's sequence.c: so many values are logged ahead. */
#define LOGGED_AHEAD	32

/* The sequence's only row, on its page, which is locked. */
typedef struct SequenceRow
{
	Relation	rel;
	Buffer		buffer;
	HeapTupleHeader tuple;
	int			length;
	Form_pg_sequence_data data;
} SequenceRow;

static void log_row(SequenceRow *row);
static int64 greatest_value(Oid sequence);

static void
lock_row(SequenceRow *row, Oid sequence, LOCKMODE lockmode, int buffer_lock)
{
	Page		page;
	ItemId		item;

	row->rel = relation_open(sequence, lockmode);
	row->buffer = ReadBuffer(row->rel, 0);
	LockBuffer(row->buffer, buffer_lock);
	page = BufferGetPage(row->buffer);
	item = PageGetItemId(page, FirstOffsetNumber);
	row->tuple = (HeapTupleHeader) PageGetItem(page, item);
	row->length = ItemIdGetLength(item);
	row->data = (Form_pg_sequence_data) ((char *) row->tuple + row->tuple->t_hoff);
}

static void
unlock_row(SequenceRow *row, LOCKMODE lockmode)
{
	UnlockReleaseBuffer(row->buffer);
	relation_close(row->rel, lockmode);
}

static int64
last_value(SequenceRow *row)
{
	return row->data->is_called ? row->data->last_value : row->data->last_value - 1;
}

/*
 * The last value that the sequence has given out, 0 for none; and whether it
 * has just been logged, as by setval(), and at every 33rd nextval().  Reads the page
 * itself: pg_sequence_last_value() would keep a lock to the end of the
 * transaction, and wants privileges.
 */
int64
es_sequence_last_value(Oid sequence, bool *logged)
{
	SequenceRow row;
	int64		last;

	lock_row(&row, sequence, AccessShareLock, BUFFER_LOCK_SHARE);
	last = last_value(&row);
	if (logged)
		*logged = row.data->log_cnt == 0;
	unlock_row(&row, AccessShareLock);
	return last;
}

/*
 * Gives out the next n values, and returns the first.  0: the end is too near for
 * that; nextval() knows what to do.  The caller holds ROW EXCLUSIVE on the sequence, as
 * nextval() does, to the end of the transaction.
 */
int64
es_sequence_draw(Oid sequence, int64 n)
{
	int64		greatest = greatest_value(sequence);
	SequenceRow row;
	int64		last;

	/*
	 * The commit shall flush what is logged here.  Not in a critical section:
	 * this can fail.
	 */
	(void) GetTopTransactionId();
	lock_row(&row, sequence, NoLock, BUFFER_LOCK_EXCLUSIVE);
	last = last_value(&row);
	if (last > greatest - n - LOGGED_AHEAD)
	{
		unlock_row(&row, NoLock);
		return 0;
	}

	START_CRIT_SECTION();
	MarkBufferDirty(row.buffer);
	/* What a checkpoint has written is logged anew, for replay begins there. */
	if (row.data->log_cnt < n || !row.data->is_called ||
		PageGetLSN(BufferGetPage(row.buffer)) <= GetRedoRecPtr())
	{
		row.data->last_value = last + n + LOGGED_AHEAD;
		row.data->is_called = true;
		row.data->log_cnt = 0;
		if (RelationNeedsWAL(row.rel))
			log_row(&row);
		row.data->log_cnt = LOGGED_AHEAD;
	}
	else
		row.data->log_cnt -= n;
	row.data->last_value = last + n;
	END_CRIT_SECTION();

	unlock_row(&row, NoLock);
	return last + 1;
}

static void
log_row(SequenceRow *row)
{
	xl_seq_rec	record;
	XLogRecPtr	end;

	es_set_locator(record, row->rel);
	XLogBeginInsert();
	XLogRegisterBuffer(0, row->buffer, REGBUF_WILL_INIT);
	XLogRegisterData((char *) &record, sizeof(record));
	XLogRegisterData((char *) row->tuple, row->length);
	end = XLogInsert(RM_SEQ_ID, XLOG_SEQ_LOG);
	PageSetLSN(BufferGetPage(row->buffer), end);
}

/* What can be reached in one step: nothing where nextval() would count otherwise. */
static int64
greatest_value(Oid sequence)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	Form_pg_sequence form;
	int64		greatest;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", sequence);
	form = (Form_pg_sequence) GETSTRUCT(tuple);
	greatest = form->seqincrement == 1 && form->seqcache == 1 ? Min(form->seqmax, ES_MAX_POSITION) : 0;
	ReleaseSysCache(tuple);
	return greatest;
}
