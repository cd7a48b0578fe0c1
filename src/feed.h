/*
 * feed.h
 *	  How far a feed can be read.
 */
#ifndef ES_FEED_H
#define ES_FEED_H

#include "event_table.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* A place in a feed: an existing event. */
typedef struct Checkpoint
{
	int64		position;		/* 0: there is none */
	pg_uuid_t	event_id;
	TimestampTz recorded_at;
} Checkpoint;

extern Snapshot es_feed_snapshot(EventTable *table, int64 *mark, int64 *last_value);
extern bool es_high_water_mark_known(EventTable *table);
extern Checkpoint es_newest_event(EventTable *table, Snapshot snapshot, int64 position);
extern Checkpoint es_next_event(EventTable *table, Snapshot snapshot, int64 position);
extern Checkpoint es_newest_checkpoint(EventTable *table);
pg_noreturn extern void es_checkpoint_diverged(EventTable *table, int64 position, pg_uuid_t *expected,
											   Checkpoint newest);

#endif							/* ES_FEED_H */
