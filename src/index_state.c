/*
 * index_state.c
 *	  Executor state for inserting into the indexes, kept between appends.
 *
 * To set it up, for the expression and the predicates above all, costs a good
 * part of what the insert of a row costs.  So a backend keeps it, for a few
 * tables, as long as their descriptions stand.  A writer takes it and gives it
 * back at its end.  Meanwhile its memory belongs to the writer's context: after
 * an error it goes with that, and the next writer makes a new one.
 *
 * Only for tables without triggers and expressions of users
 * (EventTable.simple): what those keep in the executor's state is not for us
 * to know, and would pile up.  Nothing of the relations themselves is kept.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/index.h"
#include "compat.h"
#include "executor/executor.h"
#include "index_state.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define MAX_KEPT	8

static IndexState *kept[MAX_KEPT];

static IndexState *make_index_state(EventTable *table);

/* The state, in memory of the current context. */
IndexState *
es_index_state_take(EventTable *table)
{
	IndexState **slot = &kept[table->relid % MAX_KEPT];
	IndexState *state = NULL;

	if (table->simple && *slot && (*slot)->relid == table->relid)
	{
		state = *slot;
		*slot = NULL;
		if (state->generation != table->generation)
		{
			MemoryContextDelete(state->context);
			state = NULL;
		}
		else
			MemoryContextSetParent(state->context, CurrentMemoryContext);
	}
	return state ? state : make_index_state(table);
}

/* Keeps the state, if it may be kept, in place of whichever was there. */
void
es_index_state_give_back(IndexState *state, EventTable *table)
{
	IndexState **slot = &kept[table->relid % MAX_KEPT];

	if (!table->simple)
	{
		FreeExecutorState(state->estate);
		MemoryContextDelete(state->context);
		return;
	}
	ResetPerTupleExprContext(state->estate);
	MemoryContextSetParent(state->context, CacheMemoryContext);
	if (*slot)
		MemoryContextDelete((*slot)->context);
	*slot = state;
}

static IndexState *
make_index_state(EventTable *table)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "event_store index state",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	IndexState *state = palloc0(sizeof(IndexState));
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List	   *indexes = RelationGetIndexList(table->rel);

	state->relid = table->relid;
	state->generation = table->generation;
	state->context = context;
	state->estate = CreateExecutorState();

	MemoryContextSwitchTo(state->estate->es_query_cxt);
	rte->rtekind = RTE_RELATION;
	rte->relid = table->relid;
	rte->relkind = RELKIND_RELATION;
	rte->rellockmode = RowExclusiveLock;
	es_init_range_table(state->estate, rte);

	state->nindexes = list_length(indexes);
	state->indexids = palloc(sizeof(Oid) * Max(state->nindexes, 1));
	state->infos = palloc(sizeof(IndexInfo *) * Max(state->nindexes, 1));
	for (int i = 0; i < state->nindexes; i++)
	{
		Relation	index = index_open(list_nth_oid(indexes, i), RowExclusiveLock);

		state->indexids[i] = RelationGetRelid(index);
		state->infos[i] = BuildIndexInfo(index);
		index_close(index, NoLock);
	}
	MemoryContextSwitchTo(old);
	return state;
}
