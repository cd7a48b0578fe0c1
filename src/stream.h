/*
 * stream.h
 *	  Going from stream to stream.
 */
#ifndef ES_STREAM_H
#define ES_STREAM_H

#include "event_table.h"
#include "utils/snapshot.h"

/* The streams of a table, or of a category of it, in the order of their names. */
typedef struct StreamWalk
{
	EventTable *table;
	Snapshot	snapshot;
	MemoryContext context;
	int			nsingle;		/* names to look for one by one, before */
	text	   *single[2];
	text	   *after;			/* those between these two */
	text	   *before;			/* NULL: no bound */
	text	   *stream;			/* the one that was found */
} StreamWalk;

extern void es_walk_streams(StreamWalk *walk, EventTable *table,
							Snapshot snapshot, text *category);
extern text *es_next_stream(StreamWalk *walk);
extern int64 es_newest_version(EventTable *table, Snapshot snapshot, text *stream,
							   int64 at_version, const TimestampTz *as_of);

#endif							/* ES_STREAM_H */
