/*
 * append_steps.c
 *	  The steps of an append; append(), append_batch(), append_json(),
 *	  append_streams() and the insert guard share them.
 *
 * Their order is the correctness argument (see README.md beside this file):
 * stream locks, look, decide, in-flight lock, draw positions, insert.  All
 * looking is done with SnapshotSelf: under the stream lock it shows what is
 * committed and all of our own, rows of the running command included, and it
 * takes no predicate locks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "append_steps.h"
#include "arguments.h"
#include "errors.h"
#include "miscadmin.h"
#include "event_id.h"
#include "scan.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "test_hooks.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"
#include "writer.h"
#include "xact_state.h"

/* So many failing checks are named in one error. */
#define MAX_REPORTED	20

static void lock_streams(EventTable *table, StreamAppend *streams, int nstreams);
static void check_ids_distinct(EventTable *table, StreamAppend *streams, int nstreams);
static bool find_duplicates(EventTable *table, StreamAppend *streams, int nstreams);
static bool is_duplicate(EventTable *table, StreamAppend *append, int i, TupleTableSlot *slot);
static void write_events(EventTable *table, StreamAppend *streams, int nstreams);
static bool version_matches(StreamAppend *append);

/*
 * Appends the events of all streams, or, if they are there already, fills in
 * where.  The table is open for appending.
 */
void
es_append(EventTable *table, StreamAppend *streams, int nstreams)
{
	check_ids_distinct(table, streams, nstreams);
	for (int i = 0; i < nstreams; i++)
		streams[i].hash = es_stream_hash(streams[i].stream);
	lock_streams(table, streams, nstreams);
	for (int i = 0; i < nstreams; i++)
	{
		CHECK_FOR_INTERRUPTS();
		streams[i].version = es_stream_version(table, streams[i].stream, streams[i].hash);
	}

	if (find_duplicates(table, streams, nstreams))
		return;
	es_check_versions(table, streams, nstreams);
	write_events(table, streams, nstreams);
}

static int
compare_lock_order(const void *a, const void *b)
{
	const StreamAppend *x = *(StreamAppend *const *) a;
	const StreamAppend *y = *(StreamAppend *const *) b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (y->nevents > 0) - (x->nevents > 0);
}

/* Step 2: in the order of the lock tags, of one tag the stronger mode only. */
static void
lock_streams(EventTable *table, StreamAppend *streams, int nstreams)
{
	StreamAppend **order;

	if (es_is_exclusive(table))
		return;
	order = palloc(sizeof(StreamAppend *) * nstreams);
	for (int i = 0; i < nstreams; i++)
		order[i] = &streams[i];
	if (nstreams > 1)
		qsort(order, nstreams, sizeof(StreamAppend *), compare_lock_order);
	for (int i = 0; i < nstreams; i++)
		if (i == 0 || order[i]->hash != order[i - 1]->hash)
			es_lock_stream(table, order[i]->hash,
						   order[i]->nevents > 0 ? ExclusiveLock : ShareLock);
	pfree(order);
}

/* The version of the last event at or after a version, 0 for none. */
static int64
last_version_from(EventTable *table, const text *stream, int64 from, Snapshot snapshot)
{
	ScanKeyData keys[2];
	EventScan  *scan;
	TupleTableSlot *slot;
	int64		version;

	if (ES_BROKEN(ES_BREAK_MVCC_SNAPSHOT))
		snapshot = GetActiveSnapshot();
	es_key_text(&keys[0], 1, stream);
	es_key_int64(&keys[1], 2, BTGreaterEqualStrategyNumber, from);
	scan = es_scan_begin(table, table->version_index, snapshot, from > 1 ? 2 : 1, keys);
	slot = es_scan_next(scan, BackwardScanDirection);
	version = slot ? es_slot_int64(slot, table, ES_VERSION) : 0;
	es_scan_end(scan);
	return version;
}

/*
 * Step 4: the version of the stream's last event, 0 for none.
 *
 * A B-tree scan looks at all matches on the leaf page before it returns the
 * last one.  So this backend remembers where streams of that hash stood when
 * it last looked, and looks from there first.  A wrong hint costs a second
 * probe, no more.
 */
int64
es_stream_version(EventTable *table, const text *stream, uint32 hash)
{
	static struct
	{
		Oid			relid;
		uint32		hash;
		int64		version;
	}			hints[256];
	int			i = (hash ^ table->relid) % lengthof(hints);
	int64		version = 0;

	if (hints[i].relid == table->relid && hints[i].hash == hash)
		version = last_version_from(table, stream, hints[i].version, SnapshotSelf);
	if (version == 0)
		version = last_version_from(table, stream, 1, SnapshotSelf);
	hints[i].relid = table->relid;
	hints[i].hash = hash;
	hints[i].version = version;
	return version;
}

static EventScan *
scan_event_id(EventTable *table, Datum event_id)
{
	ScanKeyData key;

	es_key_uuid(&key, 1, event_id);
	return es_scan_begin(table, table->event_id_index, SnapshotSelf, 1, &key);
}

bool
es_event_id_exists(EventTable *table, Datum event_id)
{
	EventScan  *scan = scan_event_id(table, event_id);
	bool		exists = es_scan_next(scan, ForwardScanDirection) != NULL;

	es_scan_end(scan);
	return exists;
}

void
es_event_id_conflict(EventTable *table, Datum event_id, const char *detail)
{
	ereport(ERROR,
			(errcode(ES_EVENT_ID_CONFLICT),
			 errmsg("event id %s is already in use",
					DatumGetCString(DirectFunctionCall1(uuid_out, event_id))),
			 errdetail_internal("%s", detail),
			 errhint("An append is repeated with the same ids, types and data, in the same order, to the same stream; a new event takes a new id."),
			 errtable(table->rel)));
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(DatumGetUUIDP(*(const Datum *) a),
				  DatumGetUUIDP(*(const Datum *) b), UUID_LEN);
}

static void
check_ids_distinct(EventTable *table, StreamAppend *streams, int nstreams)
{
	int			n = 0;
	Datum	   *ids;

	for (int i = 0; i < nstreams; i++)
		if (streams[i].ids_given)
			n += streams[i].nevents;
	if (n < 2)
		return;
	ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Datum) * n);
	n = 0;
	for (int i = 0; i < nstreams; i++)
		for (int j = 0; streams[i].ids_given && j < streams[i].nevents; j++)
			ids[n++] = streams[i].events[j].values[ES_EVENT_ID];
	qsort(ids, n, sizeof(Datum), compare_ids);
	for (int i = 1; i < n; i++)
		if (compare_ids(&ids[i - 1], &ids[i]) == 0)
			es_event_id_conflict(table, ids[i], "Two events of this call have that id.");
	pfree(ids);
}

/*
 * Step 5: are the events there already?  All of them, or none; anything
 * between is an error, whatever version is expected.
 */
static bool
find_duplicates(EventTable *table, StreamAppend *streams, int nstreams)
{
	NewEvent   *found = NULL;
	NewEvent   *missing = NULL;

	for (int i = 0; i < nstreams; i++)
	{
		StreamAppend *append = &streams[i];

		if (append->nevents > 0 && !append->ids_given)
			return false;
		for (int j = 0; j < append->nevents; j++)
		{
			EventScan  *scan = scan_event_id(table, append->events[j].values[ES_EVENT_ID]);
			TupleTableSlot *slot = es_scan_next(scan, ForwardScanDirection);

			CHECK_FOR_INTERRUPTS();
			if (slot == NULL)
				missing = &append->events[j];
			else if (is_duplicate(table, append, j, slot))
				found = &append->events[j];
			else
				es_event_id_conflict(table, append->events[j].values[ES_EVENT_ID],
									 "It belongs to an event of another stream, place, type or data.");
			es_scan_end(scan);
		}
		append->duplicate = true;
	}
	if (found && missing)
		es_event_id_conflict(table, found->values[ES_EVENT_ID],
							 psprintf("Some events of this call are stored already, but event %s is not.",
									  DatumGetCString(DirectFunctionCall1(uuid_out, missing->values[ES_EVENT_ID]))));
	return found != NULL;
}

/*
 * Is the stored row event i of this append, and does it follow on event i - 1?
 * Notes versions and positions on the way.
 */
static bool
is_duplicate(EventTable *table, StreamAppend *append, int i, TupleTableSlot *slot)
{
	NewEvent   *event = &append->events[i];
	bool		isnull;
	text	   *stream = DatumGetTextPP(es_slot_datum(slot, table, ES_STREAM, &isnull));
	text	   *type = DatumGetTextPP(es_slot_datum(slot, table, ES_TYPE, &isnull));
	Jsonb	   *data = DatumGetJsonbP(es_slot_datum(slot, table, ES_DATA, &isnull));
	int64		version = es_slot_int64(slot, table, ES_VERSION);

	append->last_position = es_slot_int64(slot, table, ES_POSITION);
	append->last_version = version;
	if (i == 0)
	{
		append->first_version = version;
		append->first_position = append->last_position;
	}
	return version == append->first_version + i &&
		VARSIZE_ANY_EXHDR(stream) == VARSIZE_ANY_EXHDR(append->stream) &&
		memcmp(VARDATA_ANY(stream), VARDATA_ANY(append->stream), VARSIZE_ANY_EXHDR(stream)) == 0 &&
		strcmp(text_to_cstring(type), TextDatumGetCString(event->values[ES_TYPE])) == 0 &&
		compareJsonbContainers(&data->root, &DatumGetJsonbP(event->values[ES_DATA])->root) == 0;
}

static bool
version_matches(StreamAppend *append)
{
	if (!append->check_version)
		return true;
	if (append->expected_version == ES_STREAM_EXISTS)
		return append->version > 0;
	return append->version == append->expected_version;
}

static void
describe_mismatch(StringInfo buffer, StreamAppend *append)
{
	char	   *stream = text_to_cstring(append->stream);

	if (append->expected_version == ES_STREAM_EXISTS)
		appendStringInfo(buffer, "Stream \"%s\" is at version 0, expected it to exist.", stream);
	else
		appendStringInfo(buffer, "Stream \"%s\" is at version " INT64_FORMAT ", expected " INT64_FORMAT ".",
						 stream, append->version, append->expected_version);
}

/* Step 6: all failing checks are reported at once. */
void
es_check_versions(EventTable *table, StreamAppend *streams, int nstreams)
{
	StreamAppend *first = NULL;
	int			failed = 0;
	StringInfoData detail;

	for (int i = 0; i < nstreams; i++)
	{
		if (version_matches(&streams[i]))
			continue;
		if (failed++ == 0)
		{
			first = &streams[i];
			initStringInfo(&detail);
		}
		else if (failed <= MAX_REPORTED)
			appendStringInfoChar(&detail, '\n');
		if (failed <= MAX_REPORTED)
			describe_mismatch(&detail, &streams[i]);
	}
	if (failed == 0)
		return;
	if (failed > MAX_REPORTED)
		appendStringInfo(&detail, "\n%d more.", failed - MAX_REPORTED);
	ereport(ERROR,
			(errcode(ES_WRONG_EXPECTED_VERSION),
			 failed > 1
			 ? errmsg("wrong expected versions of %d streams", failed)
			 : first->expected_version == ES_STREAM_EXISTS
			 ? errmsg("stream \"%s\" does not exist, but was expected to",
					  text_to_cstring(first->stream))
			 : errmsg("stream \"%s\" is at version " INT64_FORMAT ", not at the expected " INT64_FORMAT,
					  text_to_cstring(first->stream), first->version,
					  first->expected_version),
			 errdetail_internal("%s", detail.data),
			 errhint("Read the stream again, decide anew, and append with its present version."),
			 errtable(table->rel)));
}

/* Steps 7 to 10. */
static void
write_events(EventTable *table, StreamAppend *streams, int nstreams)
{
	EventWriter *writer;
	int64		nevents = 0;

	for (int i = 0; i < nstreams; i++)
		nevents += streams[i].nevents;
	writer = es_writer_begin(table, nevents);
	for (int i = 0; i < nstreams; i++)
	{
		StreamAppend *append = &streams[i];

		append->duplicate = false;
		append->first_version = append->version + 1;
		append->last_version = append->version + append->nevents;
		for (int j = 0; j < append->nevents; j++)
		{
			NewEvent   *event = &append->events[j];

			event->values[ES_STREAM] = PointerGetDatum(append->stream);
			event->values[ES_VERSION] = Int64GetDatum(append->first_version + j);
			if (!append->ids_given)
				event->values[ES_EVENT_ID] = UUIDPGetDatum(es_new_event_id());
			event->nulls[ES_POSITION] = event->nulls[ES_STREAM] =
				event->nulls[ES_VERSION] = event->nulls[ES_EVENT_ID] =
				event->nulls[ES_RECORDED_AT] = false;
			append->last_position = es_writer_put(writer, event);
			if (j == 0)
				append->first_position = append->last_position;
		}
	}
	es_writer_end(writer);
	ES_POINT("after_insert");
	CommandCounterIncrement();	/* two appends in one statement see each other */
	es_force_sync_commit();
}

/* No feed shall deliver what a crash could then take back. */
void
es_force_sync_commit(void)
{
	if (es_sync_commit)
		ForceSyncCommit();
}
