/*
 * snapshot.h
 *	  Saved states of streams.
 */
#ifndef ES_SNAPSHOT_H
#define ES_SNAPSHOT_H

#include "event_table.h"

/* The columns of event_store.snapshots. */
enum
{
	ES_SNAPSHOT_EVENT_TABLE = 1,
	ES_SNAPSHOT_STREAM,
	ES_SNAPSHOT_AGGREGATE,
	ES_SNAPSHOT_SCHEMA_VERSION,
	ES_SNAPSHOT_VERSION,
	ES_SNAPSHOT_STATE,
	ES_SNAPSHOT_SAVED_AT
};

#define ES_SNAPSHOT_COLUMNS		ES_SNAPSHOT_SAVED_AT

typedef struct SavedState
{
	int64		version;		/* 0: there is none */
	Datum		state;
	Datum		saved_at;
} SavedState;

extern void es_check_may_save(EventTable *table, const text *aggregate);
extern void es_save_snapshot(EventTable *table, text *stream, text *aggregate,
							 int32 schema_version, int64 version, Datum state);
extern SavedState es_find_snapshot(EventTable *table, Snapshot snapshot, text *stream,
								   text *aggregate, int32 schema_version,
								   int64 max_version, int64 stream_version,
								   bool with_state);
extern void es_check_snapshots_are_own(const text *aggregate);
extern void es_forget_aggregate_snapshots(const text *aggregate);
extern void es_forget_snapshots(Oid event_table);

#endif							/* ES_SNAPSHOT_H */
