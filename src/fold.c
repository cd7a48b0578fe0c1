/*
 * fold.c
 *	  Folding events into states, one by one; and the SQL aggregate fold().
 *
 * The reducer is called through an expression, as the executor would call it:
 * so SQL functions are inlined where they can be, and the privilege to execute
 * it is checked.  What a call leaves behind goes before the next one, and so
 * does the old state: a fold takes the memory of its state, however many events
 * there are.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "arguments.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "fold.h"
#include "funcapi.h"
#include "merge.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "read.h"
#include "scan.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(event_store_fold_step);
PG_FUNCTION_INFO_V1(event_store_fold_result);

/* The state of fold() for one group of rows. */
typedef struct FoldGroup
{
	Reducer    *reducer;
	Datum		state;
} FoldGroup;

static void name_event(void *arg);

static Node *
make_param(ParamListInfo params, int n, Oid type)
{
	Param	   *param = makeNode(Param);

	params->params[n].ptype = type;
	params->params[n].isnull = false;
	param->paramkind = PARAM_EXTERN;
	param->paramid = n + 1;
	param->paramtype = type;
	param->paramtypmod = -1;
	param->location = -1;
	return (Node *) param;
}

/*
 * Lives in the current memory context, as does what the reducer caches.
 */
Reducer *
es_make_reducer(Aggregate *aggregate)
{
	Reducer    *reducer = palloc(sizeof(Reducer));
	Oid			event_type = es_event_type();
	Oid			funcid;
	FuncExpr   *call;

	reducer->aggregate = aggregate;
	/* A copy of this moment's: the type can be altered. */
	reducer->event_type = lookup_rowtype_tupdesc_copy(event_type, -1);
	if (reducer->event_type->natts != ES_NUM_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the type event_store.event has been altered")));
	reducer->params = makeParamList(2);
	funcid = es_reducer_of(aggregate);
	reducer->is_merge = es_is_our_function(funcid, "event_store_merge");
	call = makeFuncExpr(funcid, JSONBOID,
						list_make2(make_param(reducer->params, 0, JSONBOID),
								   make_param(reducer->params, 1, event_type)),
						InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	reducer->call = ExecInitExprWithParams(expression_planner((Expr *) call), reducer->params);
	reducer->econtext = CreateStandaloneExprContext();
	reducer->econtext->ecxt_param_list_info = reducer->params;
	return reducer;
}

/* In the current memory context, since es_reduce() frees it. */
Datum
es_initial_state(Reducer *reducer)
{
	return PointerGetDatum(PG_DETOAST_DATUM_COPY(JsonbPGetDatum(reducer->aggregate->initial)));
}

/* A row as a value of type event_store.event. */
Datum
es_event_datum(Reducer *reducer, EventTable *table, TupleTableSlot *slot)
{
	Datum		values[ES_NUM_COLUMNS];
	bool		nulls[ES_NUM_COLUMNS];

	if (table->plain)
		return heap_copy_tuple_as_datum(ExecFetchSlotHeapTuple(slot, false, NULL), reducer->event_type);
	for (int i = 0; i < ES_NUM_COLUMNS; i++)
		values[i] = es_slot_datum(slot, table, i, &nulls[i]);
	return HeapTupleGetDatum(heap_form_tuple(reducer->event_type, values, nulls));
}

/*
 * The state after an event, in the current memory context.  The old state is
 * freed, and what is in the reducer's context for one event.
 */
Datum
es_reduce(Reducer *reducer, Datum state, Datum event)
{
	ErrorContextCallback callback = {error_context_stack, name_event, reducer};
	Datum		result;
	bool		isnull;

	reducer->params->params[0].value = state;
	reducer->params->params[1].value = event;
	error_context_stack = &callback;
	result = ExecEvalExprSwitchContext(reducer->call, reducer->econtext, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s returned NULL", reducer->aggregate->reducer),
				 errhint("A reducer returns the state as it is where an event does not change it.")));
	if (DatumGetPointer(result) != DatumGetPointer(state))
	{
		result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
		pfree(DatumGetPointer(state));
	}
	error_context_stack = callback.previous;
	ResetExprContext(reducer->econtext);
	return result;
}

/* Does the same for a row, without an event, if the reducer is merge() and can. */
bool
es_merge_row(Reducer *reducer, Datum *state, EventTable *table, TupleTableSlot *slot)
{
	MemoryContext old;
	Datum		data;
	bool		isnull;
	Jsonb	   *json;
	Jsonb	   *merged;

	if (!reducer->is_merge)
		return false;
	data = es_slot_datum(slot, table, ES_DATA, &isnull);
	if (isnull)
		return false;
	old = MemoryContextSwitchTo(reducer->econtext->ecxt_per_tuple_memory);
	json = DatumGetJsonbP(data);
	MemoryContextSwitchTo(old);
	merged = es_merge(DatumGetJsonbP(*state), json);
	ResetExprContext(reducer->econtext);
	if (merged == NULL)
		return false;
	pfree(DatumGetPointer(*state));
	*state = JsonbPGetDatum(merged);
	return true;
}

static char *
event_column(Reducer *reducer, EventColumn column)
{
	HeapTupleHeader event = DatumGetHeapTupleHeader(reducer->params->params[1].value);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(event),.t_data = event};
	Datum		value;
	bool		isnull;

	value = heap_getattr(&tuple, column + 1, reducer->event_type, &isnull);
	if (isnull)
		return "";
	switch (TupleDescAttr(reducer->event_type, column)->atttypid)
	{
		case TEXTOID:
			return TextDatumGetCString(value);
		case INT8OID:
			return psprintf(INT64_FORMAT, DatumGetInt64(value));
		case UUIDOID:
			return DatumGetCString(DirectFunctionCall1(uuid_out, value));
		default:
			return "";
	}
}

/* An error in the reducer tells which event it was. */
static void
name_event(void *arg)
{
	Reducer    *reducer = arg;

	errcontext("folding event %s (stream \"%s\", version %s, type \"%s\") into aggregate \"%s\"",
			   event_column(reducer, ES_EVENT_ID), event_column(reducer, ES_STREAM),
			   event_column(reducer, ES_VERSION), event_column(reducer, ES_TYPE),
			   text_to_cstring(reducer->aggregate->name));
}

/* Reducers are made once per call of fold() in a query, not once per group. */
static Reducer *
reducer_of_query(FunctionCallInfo fcinfo, const text *name)
{
	ListCell   *lc;
	MemoryContext old;
	Reducer    *reducer;

	foreach(lc, (List *) fcinfo->flinfo->fn_extra)
	{
		reducer = lfirst(lc);
		if (es_compare_texts(reducer->aggregate->name, name) == 0)
			return reducer;
	}
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	reducer = es_make_reducer(es_get_aggregate(name, GetActiveSnapshot()));
	fcinfo->flinfo->fn_extra = lappend((List *) fcinfo->flinfo->fn_extra, reducer);
	MemoryContextSwitchTo(old);
	return reducer;
}

/* As other aggregates do, fold() ignores a row whose event is NULL. */
Datum
event_store_fold_step(PG_FUNCTION_ARGS)
{
	FoldGroup  *group = PG_ARGISNULL(0) ? NULL : (FoldGroup *) PG_GETARG_POINTER(0);
	HeapTupleHeader event;
	MemoryContext context;
	MemoryContext old;
	text	   *name;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "called outside of an aggregate");
	if (PG_ARGISNULL(2))
		es_null_argument("aggregate");
	name = PG_GETARG_TEXT_PP(2);
	if (group && es_compare_texts(group->reducer->aggregate->name, name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("aggregate must be the same for all rows of a group, not \"%s\" and \"%s\"",
						text_to_cstring(group->reducer->aggregate->name), text_to_cstring(name))));
	if (PG_ARGISNULL(1))
	{
		if (group)
			PG_RETURN_POINTER(group);
		PG_RETURN_NULL();
	}
	event = PG_GETARG_HEAPTUPLEHEADER(1);
	old = MemoryContextSwitchTo(context);
	if (group == NULL)
	{
		group = palloc(sizeof(FoldGroup));
		group->reducer = reducer_of_query(fcinfo, name);
		group->state = es_initial_state(group->reducer);
	}
	group->state = es_reduce(group->reducer, group->state, PointerGetDatum(event));
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(group);
}

/* A copy: over a window, the fold goes on from here. */
Datum
event_store_fold_result(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PointerGetDatum(PG_DETOAST_DATUM_COPY(((FoldGroup *) PG_GETARG_POINTER(0))->state)));
}
