/*
 * index_state.h
 *	  Executor state for inserting into the indexes, kept between appends.
 */
#ifndef ES_INDEX_STATE_H
#define ES_INDEX_STATE_H

#include "event_table.h"
#include "nodes/execnodes.h"

typedef struct IndexState
{
	Oid			relid;
	uint64		generation;		/* of the table's description */
	MemoryContext context;		/* holds all of this */
	EState	   *estate;
	int			nindexes;
	Oid		   *indexids;
	IndexInfo **infos;
} IndexState;

extern IndexState *es_index_state_take(EventTable *table);
extern void es_index_state_give_back(IndexState *state, EventTable *table);

#endif							/* ES_INDEX_STATE_H */
