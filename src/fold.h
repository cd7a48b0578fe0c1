/*
 * fold.h
 *	  Folding events into states, one by one.
 */
#ifndef ES_FOLD_H
#define ES_FOLD_H

#include "access/tupdesc.h"
#include "aggregate.h"
#include "event_table.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"

/* An aggregate's reducer, ready to be called many times. */
typedef struct Reducer
{
	Aggregate  *aggregate;
	bool		is_merge;		/* event_store.merge() */
	TupleDesc	event_type;
	ExprState  *call;			/* of the reducer with two parameters */
	ExprContext *econtext;
	ParamListInfo params;		/* state and event */
} Reducer;

extern Reducer *es_make_reducer(Aggregate *aggregate);
extern Datum es_initial_state(Reducer *reducer);
extern Datum es_event_datum(Reducer *reducer, EventTable *table, TupleTableSlot *slot);
extern Datum es_reduce(Reducer *reducer, Datum state, Datum event);
extern bool es_merge_row(Reducer *reducer, Datum *state, EventTable *table, TupleTableSlot *slot);

#endif							/* ES_FOLD_H */
