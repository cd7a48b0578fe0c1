/*
 * project_background.c
 *	  Running projections in the background: which there are, and a step of one.
 *
 * A step is one batch, in transactions of its own, in a session of the projection's
 * owner.  What the handler raises is recorded, not raised.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "feed.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "project.h"
#include "projector_state.h"
#include "rebuild.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "test_hooks.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "xact_state.h"

/* Events of a partition's first batch. */
#define FIRST_COUNT		1000

/* Between two looks whether a rebuild can end: microseconds. */
#define FINISH_INTERVAL		INT64CONST(100000)

#define FINISH_LOCK_TIMEOUT	"100ms"

/* Where the owner has set none. */
#define LOCK_TIMEOUT		"1s"

/* Before it tries again where somebody has locked the event table: microseconds. */
#define BUSY_INTERVAL		INT64CONST(1000000)

/* It has appended to its own event table in each of so many batches. */
#define SUSPICIOUS_OWN_APPENDS	1000

static ErrorData *try_step(Partition *partition, bool carefully, StepResult *result);
static StepResult finish_rebuild(Partition *partition);
static ErrorData *abort_step(MemoryContext context);
static void begin(void);
static void commit(void);
static StepResult step(Partition *partition, bool carefully);
static void save_apart(Partition *partition, ProjectionCheckpoint at);
static void discard(void);
static bool load(Partition *partition, Run *run, StepResult *result);
static void adapt_count(Partition *partition, Run *run, MonotonicTime elapsed);
static void warn_of_loop(Run *run);
static void report(Run *run);
static StepResult record(Partition *partition, ErrorData *error);

/*
 * What is to be run in the background; of all owners if InvalidOid.  In a transaction,
 * in the current memory context.
 */
List *
es_background_partitions(Oid owner)
{
	List	   *partitions = NIL;
	ListCell   *lc;

	foreach(lc, es_list_projections())
	{
		Projection *projection = lfirst(lc);

		if (OidIsValid(owner) && projection->owner != owner)
			continue;
		for (int rebuild = 0; rebuild <= 1; rebuild++)
		{
			ListCell   *lc2;

			if (projection->paused || projection->restored ||
				(rebuild == 0 && projection->mode != ES_MODE_ASYNC) ||
				(rebuild == 1 && (projection->shadow_schema == NULL || projection->mode == ES_MODE_MANUAL)))
				continue;
			foreach(lc2, es_list_checkpoints(projection->name, rebuild))
			{
				ProjectionCheckpoint *at = lfirst(lc2);
				Partition  *partition;

				if (at->failed)
					continue;
				partition = palloc0(sizeof(Partition));
				partition->projection = pstrdup(projection->name);
				partition->owner = projection->owner;
				partition->event_table = projection->event_table;
				partition->rebuild = rebuild;
				partition->number = at->partition;
				partition->position = at->position;
				partition->retry_at = at->retry_at;
				partitions = lappend(partitions, partition);
			}
		}
	}
	return partitions;
}

/*
 * Runs one batch of it.  Whose fault an error is, a careful one finds out, unless it fails
 * itself.
 */
StepResult
es_project_step(Partition *partition)
{
	MemoryContext context = CurrentMemoryContext;
	StepResult	result;
	ErrorData  *error = try_step(partition, false, &result);

	if (error && !es_is_transient(error->sqlerrcode))
		error = try_step(partition, true, &result);
	if (error)
		result = record(partition, error);
	MemoryContextSwitchTo(context);
	if (result == ES_STEP_CAUGHT_UP && partition->rebuild)
		result = finish_rebuild(partition);
	return result;
}

static ErrorData *
try_step(Partition *partition, bool carefully, StepResult *result)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		*result = step(partition, carefully);
	}
	PG_CATCH();
	{
		error = abort_step(context);
	}
	PG_END_TRY();
	return error;
}

/* A rebuild that has caught up ends, unless others have not caught up yet. */
static StepResult
finish_rebuild(Partition *partition)
{
	MemoryContext context = CurrentMemoryContext;
	volatile StepResult result = ES_STEP_CAUGHT_UP;

	PG_TRY();
	{
		begin();
		pgstat_report_activity(STATE_RUNNING, psprintf("projection %s, end of the rebuild", partition->projection));
		/* Nobody, least of all those who append, shall queue up behind us for long. */
		(void) set_config_option("lock_timeout", FINISH_LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
		if (es_finish_rebuild(partition->projection))
			result = ES_STEP_GONE;
		else
			partition->retry_at = GetCurrentTimestamp() + FINISH_INTERVAL;
		commit();
	}
	PG_CATCH();
	{
		ErrorData  *error = abort_step(context);

		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			partition->retry_at = GetCurrentTimestamp() + BUSY_INTERVAL;
		else
			result = record(partition, error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return result;
}

/* After an error, which it returns. */
static ErrorData *
abort_step(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	HOLD_INTERRUPTS();
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	AbortCurrentTransaction();
	FlushErrorState();
	/* The rest of what discard() does has been rolled back. */
	LockReleaseSession(USER_LOCKMETHOD);
	DropAllPreparedStatements();
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(context);
	return error;
}

/* With a snapshot, as SQL expects it. */
static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	es_projection_progressed();
}

static StepResult
step(Partition *partition, bool carefully)
{
	MonotonicTime start = es_now();
	Run			run = {.carefully = carefully,.in_background = true,.until = PG_INT64_MAX};
	StepResult	result;
	bool		more;

	begin();
	if (!load(partition, &run, &result))
	{
		commit();
		return result;
	}
	pgstat_report_activity(STATE_RUNNING, psprintf("projection %s, partition %d%s", partition->projection,
												   partition->number, partition->rebuild ? ", rebuild" : ""));
	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
	/* Other projections wait for this one. */
	if (LockTimeout == 0)
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	more = es_run_batch(&run);
	if (run.done > 0 || run.carefully)
		discard();
	disable_timeout(STATEMENT_TIMEOUT, false);
	adapt_count(partition, &run, es_now() - start);
	warn_of_loop(&run);
	report(&run);
	partition->position = run.at->position;
	partition->retry_at = run.write_at != 0 ? run.write_at : run.at->retry_at;
	if (run.error)
		result = run.at->failed ? ES_STEP_GONE : ES_STEP_RETRY;
	else
		result = more ? ES_STEP_MORE : ES_STEP_CAUGHT_UP;
	if (ES_BROKEN(ES_BREAK_CHECKPOINT_APART))
		save_apart(partition, *run.at);
	commit();
	return result;
}

/* The mistake that all this is made to avoid: two transactions, and time between them. */
static void
save_apart(Partition *partition, ProjectionCheckpoint at)
{
	Run			run = {0};
	StepResult	result;

	commit();
	pg_usleep(20000);
	begin();
	if (load(partition, &run, &result))
	{
		run.at->position = at.position;
		run.at->event_id = at.event_id;
		es_save_checkpoint(run.at);
	}
}

/* What a handler has left in the session is not for the next one, as DISCARD does it. */
static void
discard(void)
{
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseSession(USER_LOCKMETHOD);
	ResetTempTableNamespace();
}

/* Locks the partition, and reads what is to be run.  False: nothing. */
static bool
load(Partition *partition, Run *run, StepResult *result)
{
	if (!es_lock_partition(partition->projection, partition->rebuild, partition->number, false))
	{
		*result = ES_STEP_BUSY;
		return false;
	}
	*result = ES_STEP_GONE;
	run->projection = es_find_projection(partition->projection);
	run->rebuild = partition->rebuild;
	if (run->projection == NULL || run->projection->owner != GetUserId() ||
		run->projection->paused || run->projection->restored ||
		(partition->rebuild ? run->projection->shadow_schema == NULL || run->projection->mode == ES_MODE_MANUAL
		 : run->projection->mode != ES_MODE_ASYNC))
		return false;
	run->at = es_find_checkpoint(partition->projection, partition->rebuild, partition->number);
	if (run->at == NULL || run->at->failed)
		return false;
	if (run->at->retry_at > GetCurrentTimestamp())
	{
		partition->retry_at = run->at->retry_at;
		*result = ES_STEP_RETRY;
		return false;
	}
	if (partition->count == 0)
		partition->count = FIRST_COUNT;
	run->max_count = Min(partition->count, run->projection->max_count);
	if (run->at->attempts > 0)
	{
		run->carefully = true;
		run->max_count = partition->count = 1;
	}
	return true;
}

/* As many events as fit into the time that a batch may take. */
static void
adapt_count(Partition *partition, Run *run, MonotonicTime elapsed)
{
	int64		done = run->done;
	double		fitting;

	/* Where a batch costs much whatever its size, smaller ones are no help. */
	if (done > 0 && done < partition->last_done &&
		(double) elapsed / done > 1.5 * partition->last_elapsed / partition->last_done)
	{
		partition->count = partition->last_done;
		return;
	}
	partition->last_done = done;
	partition->last_elapsed = elapsed;
	if (done == 0 || (run->batch->complete && done == run->batch->count && elapsed <= run->projection->max_time))
		return;
	fitting = (double) done * run->projection->max_time / Max(elapsed, 1);
	partition->count = Max(1, Min(Min(fitting, done * 10.0), (double) run->projection->max_count));
}

/* A process manager that answers its own events may do so for ever. */
static void
warn_of_loop(Run *run)
{
	if (run->at->own_appends > 0 && run->at->own_appends % SUSPICIOUS_OWN_APPENDS == 0)
		ereport(WARNING,
				(errmsg("projection \"%s\" has appended to its own event table in each of its last " INT64_FORMAT " batches",
						run->projection->name, run->at->own_appends),
				 errhint("If it answers its own events it will never end: filter by types, or by what the events say.")));
}

/* What went wrong, in the server's log. */
static void
report(Run *run)
{
	EventError *error = run->error;

	if (error)
		ereport(run->at->failed ? WARNING : LOG,
				(errcode(error->sqlerrcode),
				 error->position > 0
				 ? errmsg("projection \"%s\" failed at position " INT64_FORMAT ", attempt %d of %d: %s",
						  run->projection->name, error->position, run->at->attempts,
						  run->projection->max_attempts, error->message)
				 : errmsg("projection \"%s\" failed behind position " INT64_FORMAT ", attempt %d of %d: %s",
						  run->projection->name, run->at->position, run->at->attempts,
						  run->projection->max_attempts, error->message),
				 error->context ? errcontext("%s", error->context) : 0));
}

/* An error that has nothing to do with any event: the next attempt, if any, is later. */
static StepResult
record(Partition *partition, ErrorData *error)
{
	Run			run = {0};
	StepResult	result;
	EventError	pinned = {
		.sqlerrcode = error->sqlerrcode,
		.message = error->message,
		.context = error->context
	};

	begin();
	if (!ConditionalLockRelationOid(partition->event_table, AccessShareLock))
	{
		/* It may be about to be dropped, and the projection with it. */
		partition->retry_at = GetCurrentTimestamp() + BUSY_INTERVAL;
		result = ES_STEP_RETRY;
	}
	else if (load(partition, &run, &result))
	{
		es_note_checkpoint_error(run.projection, run.at, &pinned);
		es_save_checkpoint(run.at);
		run.error = &pinned;
		report(&run);
		partition->retry_at = run.at->retry_at;
		result = run.at->failed ? ES_STEP_GONE : ES_STEP_RETRY;
	}
	commit();
	return result;
}
