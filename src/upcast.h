/*
 * upcast.h
 *	  Events in their newest shape.
 */
#ifndef ES_UPCAST_H
#define ES_UPCAST_H

#include "event_table.h"
#include "executor/tuptable.h"

/* What one read needs to upcast. */
typedef struct Upcasting Upcasting;

/* The columns of event_store.registered_upcasters. */
enum
{
	ES_UPCASTER_EVENT_TABLE = 1,
	ES_UPCASTER_TYPE,
	ES_UPCASTER_FROM_VERSION,
	ES_UPCASTER_FUNCTION
};

#define ES_NUM_UPCASTER_COLUMNS	ES_UPCASTER_FUNCTION
#define ES_UPCASTERS	"registered_upcasters"

extern void es_upcast_init(void);
extern Upcasting *es_upcast_begin(EventTable *table);
extern TupleTableSlot *es_upcast(Upcasting *upcasting, EventTable *table, TupleTableSlot *slot);
extern void es_upcast_end(Upcasting *upcasting);
extern char *es_upcaster_problem(Oid function);

#endif							/* ES_UPCAST_H */
