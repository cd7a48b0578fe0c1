/*
 * aggregate.h
 *	  The registry of aggregates: how streams are folded into states.
 */
#ifndef ES_AGGREGATE_H
#define ES_AGGREGATE_H

#include "utils/jsonb.h"
#include "utils/snapshot.h"

/* A row of event_store.aggregates. */
typedef struct Aggregate
{
	text	   *name;
	Oid			owner;
	char	   *reducer;		/* its qualified signature */
	Jsonb	   *initial;
	int32		snapshot_every; /* 0: no snapshots */
	int32		schema_version;
} Aggregate;

extern Aggregate *es_find_aggregate(const text *name, Snapshot snapshot);
extern Aggregate *es_get_aggregate(const text *name, Snapshot snapshot);
extern bool es_is_aggregate_owner(Aggregate *aggregate);
extern Oid	es_reducer_of(Aggregate *aggregate);
extern Oid	es_event_type(void);

#endif							/* ES_AGGREGATE_H */
