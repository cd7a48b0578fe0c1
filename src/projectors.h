/*
 * projectors.h
 *	  The worker's part in running projections.
 */
#ifndef ES_PROJECTORS_H
#define ES_PROJECTORS_H

#include "shared_state.h"

extern void es_reload_projections(void);
extern MonotonicTime es_attend_projectors(DatabaseSlot *db);
extern void es_wake_projectors(Oid event_table);

#endif							/* ES_PROJECTORS_H */
