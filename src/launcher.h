/*
 * launcher.h
 *	  The process that starts the workers.
 */
#ifndef ES_LAUNCHER_H
#define ES_LAUNCHER_H

#include "shared_state.h"

extern void es_launcher_init(void);
extern void es_make_room_for_projector(void);
extern void es_sleep(long timeout);
extern bool es_claim_database(DatabaseSlot *db);
extern void es_database_is_fine(DatabaseSlot *db);
extern bool es_may_leave(DatabaseSlot *db, bool work_left);

#endif							/* ES_LAUNCHER_H */
