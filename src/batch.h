/*
 * batch.h
 *	  Batches of events, as rows of type event_store.event.
 */
#ifndef ES_BATCH_H
#define ES_BATCH_H

#include "projection_checkpoint.h"
#include "utils/hsearch.h"
#include "utils/tuplestore.h"

typedef struct EventBatch
{
	TupleDesc	desc;			/* of event_store.event */
	Tuplestorestate *events;	/* in the order of their positions */
	TupleTableSlot *slot;		/* to read them with */
	MemoryContext context;		/* of all of that */
	int64		count;
	bool		complete;		/* there was nothing more to read */
	Checkpoint	end;			/* where a consumer of all of it is */
} EventBatch;

extern EventBatch *es_batch_begin(void);
extern Received es_batch_add(EventTable *table, TupleTableSlot *slot, void *arg);
extern EventBatch *es_batch_slice(EventBatch *batch, int64 from, int64 to);
extern bool es_batch_seek(EventBatch *batch, int64 n);
extern bool es_batch_next(EventBatch *batch);
extern void es_batch_end(EventBatch *batch);
extern void es_describe_event(TupleTableSlot *slot, EventError *error);
extern void es_event_context(TupleTableSlot *slot, const char *projection);

#endif							/* ES_BATCH_H */
