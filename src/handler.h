/*
 * handler.h
 *	  Handlers of projections: SQL statements and functions of users.
 */
#ifndef ES_HANDLER_H
#define ES_HANDLER_H

#include "batch.h"
#include "projection.h"
#include "shared_state.h"

/* Who and what to be again after running a handler. */
typedef struct SavedSession
{
	Oid			userid;
	int			context;
	int			nest_level;
} SavedSession;

/* This process is a projector, in a session of the owner. */
extern bool es_is_projector;

extern void es_enter_handler(Projection *projection, const char *first_schema, SavedSession *saved);
extern void es_leave_handler(SavedSession *saved);
extern void es_check_handler(Projection *projection);
extern char *es_handler_signature(Oid function);
extern int64 es_run_handler(Projection *projection, bool rebuild, EventBatch *batch, MonotonicTime deadline);

#endif							/* ES_HANDLER_H */
