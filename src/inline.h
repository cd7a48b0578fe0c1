/*
 * inline.h
 *	  Projections that run in the appending transaction.
 */
#ifndef ES_INLINE_H
#define ES_INLINE_H

#include "projection.h"

extern void es_check_inline(Projection *projection);
extern void es_create_inline_trigger(Projection *projection);
extern void es_drop_inline_trigger(Projection *projection);
extern void es_check_inline_triggers(Oid event_table);
extern void es_inline_trigger_dropped(Oid event_table, const char *trigger);

#endif							/* ES_INLINE_H */
