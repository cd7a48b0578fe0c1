/*
 * event_json.h
 *	  Events as a JSON array.
 */
#ifndef ES_EVENT_JSON_H
#define ES_EVENT_JSON_H

#include "event_table.h"
#include "executor/tuptable.h"
#include "utils/jsonb.h"

/* How many events one array takes, and about how many bytes of data. */
#define ES_ARRAY_MAX_EVENTS		100000
#define ES_ARRAY_MAX_BYTES		(16 * 1024 * 1024)

typedef struct EventArray
{
	MemoryContext context;
	JsonbParseState *state;
	Size		bytes;			/* of data and metadata */
	int			count;
} EventArray;

extern void es_event_array_begin(EventArray *array);
extern bool es_event_array_add(EventArray *array, EventTable *table, TupleTableSlot *slot);
extern Datum es_event_array_end(EventArray *array);

#endif							/* ES_EVENT_JSON_H */
