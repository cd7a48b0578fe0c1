/*
 * event_id.h
 *	  New event ids.
 */
#ifndef ES_EVENT_ID_H
#define ES_EVENT_ID_H

#include "utils/uuid.h"

extern pg_uuid_t *es_new_event_id(void);

#endif							/* ES_EVENT_ID_H */
