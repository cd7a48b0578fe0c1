/*
 * project.c
 *	  Running a projection: one batch of one partition in one transaction.
 *
 *	  lock the partition
 *	  read its checkpoint, and prove that it is of this log
 *	  read the events behind it, up to the mark, as the owner
 *	  run the handler over them
 *	  write the checkpoint
 *
 * What the handler has written and the checkpoint are committed together, or not
 * at all: that is all there is to "exactly once".
 *
 * In the background a batch runs straight in its transaction.  When that fails it is run
 * again carefully: in subtransactions, halved again and again until the event is
 * found that fails alone.  What comes before it counts.  The event itself is tried again after a
 * while, some times, and then the projection stops before it, or parks it.  Errors
 * that are not the event's, such as a table that is not there, always stop.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "errors.h"
#include "executor/spi.h"
#include "feed.h"
#include "miscadmin.h"
#include "parked.h"
#include "pgstat.h"
#include "project.h"
#include "read.h"
#include "scan.h"
#include "shadow.h"
#include "storage/proc.h"
#include "test_hooks.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "xact_state.h"

/* A batch looks at so many events, whether they are wanted or not. */
#define MAX_SCANNED		200000

/* A checkpoint that moves without any event of ours is written so often: microseconds. */
#define IDLE_WRITE_INTERVAL		INT64CONST(100000)

/* The rate is an average over about so many seconds. */
#define RATE_WINDOW		10.0

/* The partitions that this session is running right now, one within another. */
typedef struct Nested
{
	struct Nested *outer;
	const char *projection;
} Nested;

static Nested *running = NULL;

static void check_shadow_schema(Projection *projection);
static void check_not_written(Projection *projection, Oid table);
static void check_not_appended(Projection *projection, int64 before);
static void find_parked_streams(Run *run);
static void park_stream(Run *run, const char *stream);
static void check_checkpoint(Run *run, EventTable *table, Snapshot snapshot);
static void read_batch(Run *run);
static bool run_carefully(Run *run, int64 from, int64 to);
static void check_constraints(void);
static void stop_at(Run *run, EventError *error);
static bool give_up(Run *run, int64 n, EventError *error);
static void save(Run *run, bool own_append);

/*
 * Runs one batch of a partition that is locked, from run->at, which is moved on.  True: there is more to do.
 */
bool
es_run_batch(Run *run)
{
	Projection *projection = run->projection;
	Nested		nested = {.outer = running,.projection = projection->name};
	int64		drawn = es_last_drawn(projection->event_table);
	int64		drawn_anywhere = es_positions_drawn();
	SavedSession saved;
	Watch	   *watch;
	bool		more;

	for (Nested *other = running; other; other = other->outer)
		if (strcmp(other->projection, projection->name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("projection \"%s\" is being run by this session already", projection->name),
					 errhint("A handler cannot run its own projection.")));
	running = &nested;
	PG_TRY();
	{
		find_parked_streams(run);
		if (run->rebuild)
			check_shadow_schema(projection);
		es_enter_handler(projection, run->rebuild ? projection->shadow_schema : NULL, &saved);
		read_batch(run);
		watch = run->rebuild ? es_begin_watch(projection->tables) : NULL;
		run->done = run->parked = 0;
		if (run->batch->count == 0)
			 /* nothing but a checkpoint to be moved */ ;
		else if (run->carefully || run->parked_streams)
			(void) run_carefully(run, 0, run->batch->count);
		else
			run->done = es_run_handler(projection, run->rebuild, run->batch, es_now() + projection->max_time);
		if (watch)
		{
			check_not_written(projection, es_end_watch(watch));
			check_not_appended(projection, drawn_anywhere);
		}
		es_leave_handler(&saved);
	}
	PG_FINALLY();
	{
		running = nested.outer;
	}
	PG_END_TRY();

	more = run->error == NULL && (!run->batch->complete || run->done < run->batch->count);
	save(run, es_last_drawn(projection->event_table) > drawn);
	es_batch_end(run->batch);
	return more;
}

/* Nobody else has made another one of that name, to be found before all others. */
static void
check_shadow_schema(Projection *projection)
{
	Oid			schema = LookupExplicitNamespace(projection->shadow_schema, true);
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	bool		good = HeapTupleIsValid(tuple) &&
		(isTempNamespace(schema) || ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner == projection->owner);

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"%s\" with the shadows of projection \"%s\" is gone, or another role's",
						projection->shadow_schema, projection->name),
				 errhint("Call event_store.cancel_rebuild('%s').", projection->name)));
}

/* A handler that names the schema of its tables, or has a search_path of its own. */
static void
check_not_written(Projection *projection, Oid table)
{
	if (OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the handler of projection \"%s\" has written table \"%s\" past its shadow",
						projection->name, get_rel_name(table)),
				 errdetail("All of that has been rolled back."),
				 errhint("A handler that can be rebuilt and checked names its tables without their schema, and functions that it calls have no search_path of their own.")));
}

/* One that answers events by others would answer them again. */
static void
check_not_appended(Projection *projection, int64 before)
{
	if (es_positions_drawn() != before)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the handler of projection \"%s\" has appended events while it was run again", projection->name),
				 errdetail("All of that has been rolled back."),
				 errhint("What answers events can be neither rebuilt nor checked. Keep read models in a projection of their own.")));
}

/* With park_stream, what comes later in a stream waits behind its parked events. */
static void
find_parked_streams(Run *run)
{
	List	   *parked;
	ListCell   *lc;

	run->parked_streams = NULL;
	if (run->projection->on_error != ES_PARK_STREAM)
		return;
	parked = es_list_parked(run->projection->name, run->rebuild);
	foreach(lc, parked)
		park_stream(run, ((ParkedEvent *) lfirst(lc))->error.stream);
}

static void
park_stream(Run *run, const char *stream)
{
	if (run->parked_streams == NULL)
	{
		HASHCTL		control = {
			.keysize = ES_MAX_STREAM_LENGTH + 1,
			.entrysize = ES_MAX_STREAM_LENGTH + 1,
			.hcxt = CurrentMemoryContext
		};

		run->parked_streams = hash_create("parked streams", 64, &control,
										  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	(void) hash_search(run->parked_streams, stream, HASH_ENTER, NULL);
}

/* A part of the batch; events that have to wait behind a parked one are parked as well. */
static EventBatch *
slice_batch(Run *run, int64 from, int64 to)
{
	EventBatch *slice;

	if (run->parked_streams == NULL)
		return es_batch_slice(run->batch, from, to);
	slice = es_batch_begin();
	for (int64 i = from;
		 i < to && (i == from ? es_batch_seek(run->batch, i) : es_batch_next(run->batch));
		 i++)
	{
		EventError	event = {0};

		es_describe_event(run->batch->slot, &event);
		if (hash_search(run->parked_streams, event.stream, HASH_FIND, NULL))
		{
			es_park(run->projection->name, run->rebuild, &event, 0);
			run->parked++;
			continue;
		}
		tuplestore_puttupleslot(slice->events, run->batch->slot);
		slice->count++;
	}
	return slice;
}

/* The events behind the checkpoint; batch->end is where a consumer of all of them is. */
static void
read_batch(Run *run)
{
	Projection *projection = run->projection;
	EventTable *table = es_event_table_open(projection->event_table, AccessShareLock, ES_FOR_READING);
	int64		mark;
	Snapshot	snapshot = es_feed_snapshot(table, &mark, NULL);
	EventQuery	query;
	EventQueryResult progress;

	mark = Min(mark, run->until);
	es_query_init(&query, table, snapshot);
	check_checkpoint(run, table, query.snapshot);
	query.low = run->at->position + 1;
	query.high = mark;
	query.max_count = run->max_count;
	query.max_scanned = MAX_SCANNED;
	query.types = projection->types;
	query.categories = projection->categories;
	query.partitions = projection->partitions;
	query.partition = run->at->partition;
	query.upcast = true;
	run->batch = es_batch_begin();
	progress = es_read_events(&query, es_batch_add, run->batch);
	run->batch->complete = progress.complete;
	run->batch->end = es_newest_event(table, query.snapshot, progress.complete ? mark : progress.last_scanned);
	/* The mark can be lower than it was. */
	if (run->batch->end.position < run->at->position)
	{
		run->batch->end.position = run->at->position;
		run->batch->end.event_id = run->at->event_id;
	}
	UnregisterSnapshot(query.snapshot);
	es_event_table_close(table);	/* but not its lock */
}

static void
check_checkpoint(Run *run, EventTable *table, Snapshot snapshot)
{
	Checkpoint	newest;

	if (run->at->position == 0)
		return;
	newest = es_newest_event(table, snapshot, run->at->position);
	if (newest.position == 0 || memcmp(&newest.event_id, &run->at->event_id, UUID_LEN) != 0)
		es_checkpoint_diverged(table, run->at->position, &run->at->event_id, newest);
}

/*
 * Runs a part of the batch so that an error is pinned on an event.  False: it stops
 * before an event; run->done events come before that.
 */
static bool
run_carefully(Run *run, int64 from, int64 to)
{
	EventError	error = {0};
	int64		middle = from + (to - from) / 2;

	if (es_try_events(run, from, to, &error))
	{
		run->done = to;
		return true;
	}
	if (es_is_transient(error.sqlerrcode))
	{
		stop_at(run, &error);
		return false;
	}
	if (to - from > 1)
		return run_carefully(run, from, middle) && run_carefully(run, middle, to);
	return give_up(run, from, &error);
}

/*
 * In a subtransaction; false: it failed, and nothing has happened.  What asks this
 * session to stop is passed on, and what has to do with the whole transaction.
 */
bool
es_try_events(Run *run, int64 from, int64 to, EventError *error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext slice_context;
	volatile bool done = false;
	volatile int64 parked = run->parked;

	/* The subtransaction's own would stay to the end of the transaction. */
	slice_context = AllocSetContextCreate(context, "slice", ALLOCSET_DEFAULT_SIZES);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(slice_context);
	PG_TRY();
	{
		EventBatch *slice = slice_batch(run, from, to);

		if (run->in_background && StatementTimeout > 0)
			enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
		if (slice->count > 0)
		{
			(void) es_run_handler(run->projection, run->rebuild, slice, ES_NEVER);
			check_constraints();
		}
		es_batch_end(slice);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *caught;

		/* First of all: to copy the error can fail, and would leave us in the subtransaction. */
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (!run->in_background &&
			(geterrcode() == ERRCODE_QUERY_CANCELED || es_is_transient(geterrcode())))
			PG_RE_THROW();
		caught = CopyErrorData();
		FlushErrorState();
		run->parked = parked;
		error->sqlerrcode = caught->sqlerrcode;
		error->message = caught->message;
		error->context = caught->context;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	MemoryContextDelete(slice_context);
	return done;
}

/* What is deferred fails now, not at the commit, when nobody knows any more which event it was. */
static void
check_constraints(void)
{
	if (InSecurityRestrictedOperation())
		return;					/* nothing can have been deferred */
	SPI_connect();
	if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not check the constraints");
	SPI_finish();
}

/*
 * Or would the next event fail in the same way?  By the class: data and constraints, limits,
 * what functions raise, and classes that users have made up.
 */
static bool
is_events_fault(int sqlerrcode)
{
	const char *class = unpack_sql_state(sqlerrcode);

	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CARDINALITY_VIOLATION:
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION:
		case ERRCODE_WITH_CHECK_OPTION_VIOLATION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_EXTERNAL_ROUTINE_EXCEPTION:
		case ERRCODE_PLPGSQL_ERROR:
			return true;
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_SNAPSHOT_TOO_OLD:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return sqlerrcode == ERRCODE_QUERY_CANCELED ||
				(class[0] >= '6' && class[0] <= '9') || class[0] >= 'I';
	}
}

static void
stop_at(Run *run, EventError *error)
{
	run->error = palloc(sizeof(EventError));
	*run->error = *error;
}

/* One event has failed.  True: it has been parked, and the next one can come. */
static bool
give_up(Run *run, int64 n, EventError *error)
{
	Projection *projection = run->projection;
	ProjectionCheckpoint *at = run->at;
	bool		again = at->attempts > 0 && at->error;

	if (es_batch_seek(run->batch, n))
		es_describe_event(run->batch->slot, error);
	if (run->trial)
	{
		EventError *copy = palloc(sizeof(EventError));

		*copy = *error;
		run->errors = lappend(run->errors, copy);
		run->parked++;
		run->done = n + 1;
		return true;
	}
	again = again && at->error->position == error->position;
	if (projection->on_error == ES_STOP || !is_events_fault(error->sqlerrcode) ||
		(run->in_background && (again ? at->attempts : 0) + 1 < projection->max_attempts))
	{
		stop_at(run, error);
		return false;
	}
	es_park(projection->name, run->rebuild, error, again ? at->attempts + 1 : 1);
	if (run->in_background)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("projection \"%s\" has parked the event at position " INT64_FORMAT ": %s",
						projection->name, error->position, error->message),
				 error->context ? errcontext("%s", error->context) : 0));
	at->errors++;
	at->attempts = 0;
	if (projection->on_error == ES_PARK_STREAM)
		park_stream(run, error->stream);
	run->parked++;
	run->done = n + 1;
	return true;
}

/*
 * Writes the checkpoint.  A handler may have changed or dropped its own projection:
 * what it has done stays.
 */
static void
save(Run *run, bool own_append)
{
	ProjectionCheckpoint *at = run->at;
	EventBatch *batch = run->batch;
	ProjectionCheckpoint *stored = es_find_checkpoint(at->projection, at->rebuild, at->partition);
	TimestampTz now = GetCurrentTimestamp();
	double		elapsed = Max((now - at->updated_at) / 1e6, 1e-6);
	double		weight = Min(elapsed / RATE_WINDOW, 1.0);
	Checkpoint	end = batch->end;

	if (stored == NULL || stored->position != at->position)
		return;
	if (batch->count == 0 && at->attempts == 0)
	{
		/* Where nothing was ours, it can wait a little, for the sake of many projections. */
		if (end.position > at->position && run->in_background && batch->complete &&
			now < at->updated_at + IDLE_WRITE_INTERVAL)
			run->write_at = at->updated_at + IDLE_WRITE_INTERVAL;
		if (end.position == at->position || run->write_at != 0)
		{
			at->position = end.position;
			return;
		}
	}
	if (run->done < batch->count)
	{
		/* It ends before an event: at the last one that counts, if there is any. */
		if (run->done > 0 && es_batch_seek(batch, run->done - 1))
		{
			EventError	last;

			es_describe_event(batch->slot, &last);
			end.position = last.position;
			end.event_id = last.event_id;
		}
		else
		{
			end.position = at->position;
			end.event_id = at->event_id;
		}
	}
	at->position = end.position;
	at->event_id = end.event_id;
	at->events += run->done - run->parked;
	at->batches++;
	at->own_appends = own_append ? at->own_appends + 1 : 0;
	at->rate += weight * (run->done / elapsed - at->rate);
	at->updated_at = now;
	if (run->error)
		es_note_checkpoint_error(run->projection, at, run->error);
	else if (run->done > 0 || (batch->complete && !run->rebuild))
	{
		at->attempts = 0;
		at->failed = false;
		at->retry_at = 0;
	}
	if (!(ES_BROKEN(ES_BREAK_CHECKPOINT_APART) && run->in_background))
		es_save_checkpoint(at);
}

/* For those who run it by hand: SE007. */
void
es_projection_failed(Projection *projection, EventError *error)
{
	ereport(ERROR,
			(errcode(ES_PROJECTION_FAILED),
			 errmsg("projection \"%s\" failed at position " INT64_FORMAT ": %s",
					projection->name, error->position, error->message),
			 errdetail("Event %s of type \"%s\" in stream \"%s\"; SQLSTATE %s.",
					   DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&error->event_id))),
					   error->type, error->stream, unpack_sql_state(error->sqlerrcode)),
			 error->context ? errcontext("%s", error->context) : 0));
}
