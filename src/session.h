/*
 * session.h
 *	  What the sessions of background processes have in common.
 */
#ifndef ES_SESSION_H
#define ES_SESSION_H

#include "shared_state.h"
#include "test_hooks.h"

/* Microseconds: pauses after failures. */
#define ES_FIRST_RETRY	(ES_RETRY_MS * INT64CONST(1000))
#define ES_LAST_RETRY	INT64CONST(60000000)

extern void es_prepare_session(Oid user);
extern bool es_session_is_of(Oid user);
extern MonotonicTime es_recover(int *failures);

#endif							/* ES_SESSION_H */
