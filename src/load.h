/*
 * load.h
 *	  Loading the states of streams.
 */
#ifndef ES_LOAD_H
#define ES_LOAD_H

#include "fold.h"
#include "utils/timestamp.h"

/* What of which streams to fold, and how. */
typedef struct Load
{
	EventTable *table;
	Snapshot	snapshot;
	Reducer    *reducer;
	int64		at_version;
	TimestampTz *as_of;			/* NULL: now */
	TimestampTz *occurred_as_of;	/* NULL: in the order of versions */
	bool		use_snapshot;
} Load;

/* A state, and what it is made of. */
typedef struct Loaded
{
	int64		version;		/* 0: no event */
	Datum		state;
	int64		events_folded;
	int64		snapshot_version;	/* 0: none was used */
} Loaded;

extern void es_load_init(Load *load, EventTable *table, Aggregate *aggregate);
extern Loaded es_load(Load *load, text *stream);
extern void es_fold_events(Load *load, text *stream, int64 up_to, Loaded *loaded);

#endif							/* ES_LOAD_H */
