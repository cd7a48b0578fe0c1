/*
 * merge.h
 *	  Merging JSON objects.
 */
#ifndef ES_MERGE_H
#define ES_MERGE_H

#include "utils/jsonb.h"

extern Jsonb *es_merge(Jsonb *state, Jsonb *data);

#endif							/* ES_MERGE_H */
