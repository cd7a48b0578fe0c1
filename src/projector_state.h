/*
 * projector_state.h
 *	  Which processes run projections.
 */
#ifndef ES_PROJECTOR_STATE_H
#define ES_PROJECTOR_STATE_H

#include "shared_state.h"

/* With es_shared->lock held. */
extern bool es_have_projectors(Oid database);
extern bool es_have_projectors_to_attend(Oid database);
extern void es_set_projector_latches(Oid database);
extern bool es_evict_projectors(Oid database, bool terminate);
extern void es_forget_projectors(Oid database);
extern void es_free_projector(ProjectorSlot *slot);
extern bool es_waits_longest(DatabaseSlot *db);
extern void es_want_projector(DatabaseSlot *db, bool want);

extern ProjectorSlot *es_take_projector_slot(DatabaseSlot *db, Oid owner, bool extra);
extern DatabaseSlot *es_claim_projector_slot(ProjectorSlot *slot);
extern int	es_count_projectors(Oid owner);
extern pid_t es_projector_pid(Oid owner);
extern void es_projection_progressed(void);
extern bool es_wait_for_progress(MonotonicTime deadline);

#endif							/* ES_PROJECTOR_STATE_H */
