/*
 * parked.h
 *	  Events that projections have parked.
 */
#ifndef ES_PARKED_H
#define ES_PARKED_H

#include "projection_checkpoint.h"

/* A row of event_store.projection_parked. */
typedef struct ParkedEvent
{
	EventError	error;			/* sqlerrcode 0: it waits behind another one */
	int			attempts;
	TimestampTz parked_at;
} ParkedEvent;

extern List *es_list_parked(const char *projection, bool rebuild);
extern void es_park(const char *projection, bool rebuild, EventError *error, int attempts);
extern void es_note_parked_error(const char *projection, ParkedEvent *parked, EventError *error);
extern void es_delete_parked(const char *projection, bool rebuild);
extern void es_take_over_parked(const char *projection);
extern void es_delete_parked_event(const char *projection, int64 position);

#endif							/* ES_PARKED_H */
