/*
 * rebuild.h
 *	  Rebuilding projections.
 */
#ifndef ES_REBUILD_H
#define ES_REBUILD_H

#include "projection.h"

extern void es_check_shadows_possible(Projection *projection);
extern bool es_finish_rebuild(const char *name);
extern void es_drop_shadow_schema(Projection *projection);
extern void es_cancel_rebuild(Projection *projection);

#endif							/* ES_REBUILD_H */
