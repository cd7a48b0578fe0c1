/*
 * run_projection.c
 *	  Running projections by hand: run_projection(), retry_parked(), drop_parked().
 *
 * In the transaction of the caller, who waits for others that run the same
 * partition.  An event that fails is parked, or fails the whole call: there is no later
 * attempt.  Not under REPEATABLE READ, where a handler would see the read model as it was
 * before others worked on it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "arguments.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parked.h"
#include "project.h"
#include "rebuild.h"
#include "read.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(event_store_run_projection);
PG_FUNCTION_INFO_V1(event_store_retry_parked);
PG_FUNCTION_INFO_V1(event_store_drop_parked);

/* What came of it. */
typedef struct RunTotal
{
	int64		events;
	int64		batches;
	int64		parked;
	int64		position;
} RunTotal;

static bool run_partition(Projection **projection, bool rebuild, int partition, int64 until,
						  int64 max_batches, RunTotal *total);
static void check_has_checkpoint(Projection *projection, bool rebuild, int partition);
static bool retry(Projection *projection, ParkedEvent *parked);
static EventBatch *read_event(Projection *projection, ParkedEvent *parked);
pg_noreturn static void no_such_parked_event(Projection *projection, int64 position);

/* Reads what others commit meanwhile, as a handler must. */
void
es_check_isolation(const char *function)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s must not be called under %s", function,
						XactIsoLevel == XACT_SERIALIZABLE ? "SERIALIZABLE" : "REPEATABLE READ"),
				 errhint("Call it in a transaction of its own, which is READ COMMITTED.")));
}

/*
 * Runs all partitions up to a position, or the mark; or each as far as its checkpoint in
 * that list is.  An event that fails raises SE007, unless it can be parked.
 */
void
es_run_to_end(Projection *projection, bool rebuild, int64 until, List *limits)
{
	RunTotal	total = {0};

	for (int partition = 1; partition <= projection->partitions; partition++)
	{
		ListCell   *lc;

		foreach(lc, limits)
			if (((ProjectionCheckpoint *) lfirst(lc))->partition == partition)
				until = ((ProjectionCheckpoint *) lfirst(lc))->position;
		if (!run_partition(&projection, rebuild, partition, until, PG_INT64_MAX, &total))
			break;
	}
}

/*
 * A handler may have paused, changed or dropped its own projection.  What is read anew is
 * in the current memory context.
 */
bool
es_may_go_on(Projection **projection, bool rebuild)
{
	Projection *current = es_find_projection((*projection)->name);

	if (current == NULL || (current->paused && !(*projection)->paused))
		return false;
	if (rebuild)
		current->shadow_schema = pstrdup((*projection)->shadow_schema);
	*projection = current;
	return true;
}

/*
 * False: nothing more of it is to be run.  What one batch needs is freed when the
 * next one has ended.
 */
static bool
run_partition(Projection **projection, bool rebuild, int partition, int64 until, int64 max_batches, RunTotal *total)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext contexts[2];
	Projection *current = *projection;
	ProjectionCheckpoint *at;
	bool		more = true;
	bool		go_on = true;

	(void) es_lock_partition(current->name, rebuild, partition, true);
	check_has_checkpoint(current, rebuild, partition);
	for (int i = 0; i < 2; i++)
		contexts[i] = AllocSetContextCreate(outer, "batch", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; more && go_on && total->batches < max_batches; i = !i)
	{
		Run			run;

		MemoryContextReset(contexts[i]);
		MemoryContextSwitchTo(contexts[i]);
		run = (Run) {
			.projection = current,
			.rebuild = rebuild,
			.at = es_find_checkpoint(current->name, rebuild, partition),
			.until = until,
			.max_count = current->max_count,
			.carefully = true,
			.in_background = es_is_projector
		};
		if (run.at == NULL)
			break;				/* divided otherwise, by its handler */
		more = es_run_batch(&run);
		if (run.error)
			es_projection_failed(current, run.error);
		total->events += run.done - run.parked;
		total->parked += run.parked;
		total->batches += run.batch->count > 0;
		go_on = es_may_go_on(&current, rebuild);
	}
	MemoryContextSwitchTo(outer);
	at = rebuild ? NULL : es_find_checkpoint((*projection)->name, false, partition);
	if (at)
		total->position = Min(total->position, at->position);
	if (go_on)
		go_on = es_may_go_on(projection, rebuild);
	MemoryContextDelete(contexts[0]);
	MemoryContextDelete(contexts[1]);
	return go_on;
}

/* Rows that somebody has brought by SQL may be incomplete. */
static void
check_has_checkpoint(Projection *projection, bool rebuild, int partition)
{
	if (es_find_checkpoint(projection->name, rebuild, partition) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" has no checkpoint of partition %d", projection->name, partition),
				 errhint("It has not been restored as a whole: drop it, and create it again.")));
}

static bool
run_all(Projection **projection, bool rebuild, int64 max_batches, RunTotal *total)
{
	for (int partition = 1; partition <= (*projection)->partitions; partition++)
		if (!run_partition(projection, rebuild, partition, PG_INT64_MAX, max_batches, total))
			return false;
	return true;
}

Datum
event_store_run_projection(PG_FUNCTION_ARGS)
{
	char	   *name = es_arg_projection_name(fcinfo);
	int64		max_batches = es_arg_int64(fcinfo, 1, PG_INT64_MAX);
	Projection *projection = es_get_projection(name);
	RunTotal	total = {.position = PG_INT64_MAX};
	bool		go_on;
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};

	PreventCommandIfReadOnly("run_projection()");
	PreventCommandIfParallelMode("run_projection()");
	es_check_isolation("run_projection()");
	es_check_projection_owner(projection);
	es_check_not_negative("max_batches", max_batches);

	/* As it is once nobody can change it any more; the end of a rebuild changes it. */
	if (projection->shadow_schema)
		es_lock_projection(name);
	else
		(void) es_lock_partition(name, false, 1, true);
	projection = es_get_projection(name);
	es_check_projection_owner(projection);
	if (projection->mode == ES_MODE_INLINE && projection->shadow_schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is inline", name),
				 errdetail("It has seen every event that has been appended.")));
	es_check_not_paused(projection);
	/* The rebuild first: it may be what cures the rest. */
	go_on = projection->shadow_schema == NULL || run_all(&projection, true, max_batches, &total);
	if (go_on && projection->shadow_schema && es_finish_rebuild(name))
		projection = es_get_projection(name);
	if (go_on && projection->mode != ES_MODE_INLINE)
		(void) run_all(&projection, false, max_batches, &total);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(total.events);
	values[1] = Int64GetDatum(total.batches);
	values[2] = Int64GetDatum(total.parked);
	values[3] = Int64GetDatum(total.position);
	nulls[3] = total.position == PG_INT64_MAX;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

void
es_check_not_paused(Projection *projection)
{
	if (projection->paused || projection->restored)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is paused", projection->name),
				 projection->restored ? errdetail("It has been restored from a dump.") : 0,
				 errhint("Call event_store.resume_projection('%s').", projection->name)));
}

/*
 * Runs parked events again, each in a subtransaction of its own, in the order of their positions;
 * all, or that at one position.  With park_stream, what waits behind an event that
 * fails again goes on waiting.
 */
Datum
event_store_retry_parked(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "retry_parked()");
	bool		all = PG_ARGISNULL(1);
	int64		position = all ? 0 : PG_GETARG_INT64(1);
	List	   *stuck = NIL;	/* streams */
	int64		succeeded = 0;
	bool		found = false;
	ListCell   *lc;

	es_check_isolation("retry_parked()");
	es_check_not_paused(projection);
	foreach(lc, es_list_parked(projection->name, false))
	{
		ParkedEvent *parked = lfirst(lc);
		bool		wanted = all || parked->error.position == position;
		bool		waits = projection->on_error == ES_PARK_STREAM &&
			list_member(stuck, makeString(parked->error.stream));

		found |= wanted;
		if (wanted && waits && !all)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the event at position " INT64_FORMAT " waits behind a parked one of its stream", position),
					 errdetail("Stream \"%s\".", parked->error.stream),
					 errhint("Retry or drop that one first.")));
		if (wanted && !waits && retry(projection, parked))
			succeeded++;
		else if (!waits)
			stuck = lappend(stuck, makeString(parked->error.stream));
	}
	if (!found && !all)
		no_such_parked_event(projection, position);
	PG_RETURN_INT64(succeeded);
}

static bool
retry(Projection *projection, ParkedEvent *parked)
{
	Run			run = {.projection = projection};
	SavedSession saved;
	EventError	error = parked->error;
	bool		done;

	es_enter_handler(projection, NULL, &saved);
	run.batch = read_event(projection, parked);
	done = es_try_events(&run, 0, run.batch->count, &error);
	es_leave_handler(&saved);
	if (done)
		es_delete_parked_event(projection->name, parked->error.position);
	else
		es_note_parked_error(projection->name, parked, &error);
	es_batch_end(run.batch);
	return done;
}

static EventBatch *
read_event(Projection *projection, ParkedEvent *parked)
{
	EventTable *table = es_event_table_open(projection->event_table, AccessShareLock, ES_FOR_READING);
	EventBatch *batch = es_batch_begin();
	EventQuery	query;

	es_query_init(&query, table, RegisterSnapshot(GetLatestSnapshot()));
	query.low = query.high = parked->error.position;
	query.upcast = true;
	es_read_events(&query, es_batch_add, batch);
	UnregisterSnapshot(query.snapshot);
	es_event_table_close(table);
	if (batch->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no event at position " INT64_FORMAT, parked->error.position)));
	return batch;
}

/* Forgets a parked event, or all of them: the read model will never see it. */
Datum
event_store_drop_parked(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "drop_parked()");
	bool		all = PG_ARGISNULL(1);
	int64		dropped = 0;
	ListCell   *lc;

	foreach(lc, es_list_parked(projection->name, false))
	{
		int64		position = ((ParkedEvent *) lfirst(lc))->error.position;

		if (!all && position != PG_GETARG_INT64(1))
			continue;
		es_delete_parked_event(projection->name, position);
		dropped++;
	}
	if (dropped == 0 && !all)
		no_such_parked_event(projection, PG_GETARG_INT64(1));
	PG_RETURN_INT64(dropped);
}

static void
no_such_parked_event(Projection *projection, int64 position)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("projection \"%s\" has parked no event at position " INT64_FORMAT,
					projection->name, position),
			 errhint("They are in event_store.parked_events.")));
}
