/*
 * trial.c
 *	  dry_run_projection() and check_projection(): running a handler, and taking it back.
 *
 * Both run in a subtransaction that is rolled back, with the projection locked.
 *
 * A dry run leaves out each event that fails, and lists it.  A check replays all events into
 * temporary shadows of the projection's tables, twice, or once against what is live, and
 * compares: a projection whose replays differ depends on something other than its
 * events.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "handler.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "parked.h"
#include "project.h"
#include "rebuild.h"
#include "shadow.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(event_store_dry_run_projection);
PG_FUNCTION_INFO_V1(event_store_check_projection);

/* A dry run lists so many errors. */
#define MAX_ERRORS		100

/* What a dry run is to do, and finds out. */
typedef struct DryRun
{
	Projection *projection;
	int64		after;			/* -1: from where it is */
	int64		max_count;
	int64		events;
	int64		failed;
	int64		batches;
	MonotonicTime elapsed;
	StringInfoData errors;		/* a JSON array */
} DryRun;

/* What a check finds out about one table. */
typedef struct Comparison
{
	Oid			table;
	uint64		rows;
	char	   *digest;
	char	   *difference;		/* NULL: none */
} Comparison;

/* What a check is to do, and finds out. */
typedef struct Check
{
	Projection *projection;
	bool		against_live;
	MemoryContext context;		/* of the result */
	List	   *comparisons;
} Check;

static void take_back(void (*trial) (void *arg), void *arg);
static void dry_run(void *arg);
static void dry_run_partition(Projection *projection, int partition, DryRun *result);
static void list_errors(DryRun *result, List *errors);
static void check(void *arg);
static void replay(Projection *projection, List *live);
static int64 count_of(Projection *projection);
static void put_aside(Projection *projection);
static char *first_replay(Oid table);
static Comparison *compare(Oid table, Oid other, Oid shadow);

Datum
event_store_dry_run_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "dry_run_projection()");
	DryRun		result = {
		.projection = projection,
		.after = es_arg_int64(fcinfo, 1, -1),
		.max_count = es_arg_int64(fcinfo, 2, PG_INT64_MAX)
	};
	Interval   *duration;
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {false};

	es_check_isolation("dry_run_projection()");
	es_check_not_negative("max_count", result.max_count);
	if (!PG_ARGISNULL(1))
		es_check_not_negative("after", result.after);
	initStringInfo(&result.errors);
	take_back(dry_run, &result);

	duration = es_us_interval(result.elapsed);
	values[0] = Int64GetDatum(result.events);
	values[1] = Int64GetDatum(result.batches);
	values[2] = Int64GetDatum(result.failed);
	values[3] = IntervalPGetDatum(duration);
	values[4] = DirectFunctionCall1(jsonb_in, CStringGetDatum(result.errors.data));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Also after an error, which would leave us in the subtransaction. */
static void
take_back(void (*trial) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		trial(arg);
	}
	PG_CATCH();
	{
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		PG_RE_THROW();
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/* From a position on, or from where the projection is; up to the mark, or so many events. */
static void
dry_run(void *arg)
{
	DryRun	   *result = arg;
	Projection *projection = result->projection;
	int64		after = result->after;
	Checkpoint	start = after < 0 ? es_projection_start(projection) : es_projection_at(projection, after);
	MonotonicTime began = es_now();

	appendStringInfoChar(&result->errors, '[');
	if (projection->mode == ES_MODE_INLINE)
		es_insert_checkpoints(projection, false, start);
	for (int partition = 1; partition <= projection->partitions; partition++)
	{
		ProjectionCheckpoint *at = es_find_checkpoint(projection->name, false, partition);

		if (at && after >= 0)
		{
			at->position = start.position;
			at->event_id = start.event_id;
			es_save_checkpoint(at);
		}
		if (at)
			dry_run_partition(projection, partition, result);
	}
	appendStringInfoChar(&result->errors, ']');
	result->elapsed = es_now() - began;
}

/* What a batch needs is freed when the next one has ended. */
static void
dry_run_partition(Projection *projection, int partition, DryRun *result)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext contexts[2];
	bool		more = true;

	for (int i = 0; i < 2; i++)
		contexts[i] = AllocSetContextCreate(outer, "batch", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; more && result->max_count > result->events + result->failed; i = !i)
	{
		Run			run;

		MemoryContextReset(contexts[i]);
		MemoryContextSwitchTo(contexts[i]);
		run = (Run) {
			.projection = projection,
			.at = es_find_checkpoint(projection->name, false, partition),
			.until = PG_INT64_MAX,
			.max_count = Min(projection->max_count, result->max_count - result->events - result->failed),
			.carefully = true,
			.trial = true
		};
		if (run.at == NULL)
			break;
		more = es_run_batch(&run);
		result->events += run.done - run.parked;
		result->failed += list_length(run.errors);
		result->batches += run.done > 0;
		list_errors(result, run.errors);
		more = es_may_go_on(&projection, false) && more;
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(contexts[0]);
	MemoryContextDelete(contexts[1]);
}

static void
list_errors(DryRun *result, List *errors)
{
	int64		listed = result->failed - list_length(errors);
	ListCell   *lc;

	foreach(lc, errors)
	{
		EventError *error = lfirst(lc);

		if (++listed > MAX_ERRORS)
			return;
		appendStringInfo(&result->errors, "%s{\"position\": " INT64_FORMAT ", \"event_id\": \"%s\", \"stream\": ",
						 listed > 1 ? ", " : "", error->position,
						 DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&error->event_id))));
		escape_json(&result->errors, error->stream);
		appendStringInfoString(&result->errors, ", \"type\": ");
		escape_json(&result->errors, error->type);
		appendStringInfo(&result->errors, ", \"sqlstate\": \"%s\", \"message\": ", unpack_sql_state(error->sqlerrcode));
		escape_json(&result->errors, error->message);
		appendStringInfoChar(&result->errors, '}');
	}
}

Datum
event_store_check_projection(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Projection *projection = es_arg_projection(fcinfo, "check_projection()");
	Check		found = {
		.projection = projection,
		.against_live = es_arg_flag(fcinfo, 1),
		.context = CurrentMemoryContext
	};
	ListCell   *lc;

	es_check_isolation("check_projection()");
	if (projection->shadow_schema)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is being rebuilt", projection->name),
				 errhint("Wait until it is done, or call event_store.cancel_rebuild('%s').", projection->name)));
	es_check_shadows_possible(projection);
	take_back(check, &found);

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, found.comparisons)
	{
		Comparison *comparison = lfirst(lc);
		Datum		values[5];
		bool		nulls[5] = {false};

		values[0] = ObjectIdGetDatum(comparison->table);
		values[1] = Int64GetDatum((int64) comparison->rows);
		values[2] = CStringGetTextDatum(comparison->digest);
		values[3] = BoolGetDatum(comparison->difference == NULL);
		nulls[4] = comparison->difference == NULL;
		if (!nulls[4])
			values[4] = DirectFunctionCall1(jsonb_in, CStringGetDatum(comparison->difference));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static void
check(void *arg)
{
	Check	   *result = arg;
	Projection *projection = result->projection;
	bool		against_live = result->against_live;
	List	   *live = NIL;
	ListCell   *lc;
	SavedSession saved;

	if (against_live && projection->mode == ES_MODE_INLINE)
		es_keep_appenders_out(projection);
	if (against_live)
		live = es_list_checkpoints(projection->name, false);
	projection->shadow_schema = pstrdup("pg_temp");
	replay(projection, live);
	if (!against_live)
	{
		/* In other batches: how large they are must not matter either. */
		put_aside(projection);
		projection->max_count = Max(1, Min(projection->max_count, count_of(projection)) / 3);
		replay(projection, NIL);
	}

	es_enter_handler(projection, NULL, &saved);
	foreach(lc, es_read_model(projection->tables))
	{
		Oid			table = lfirst_oid(lc);
		Oid			shadow = es_shadow_of(table, NULL);
		Oid			other = against_live ? table : get_relname_relid(first_replay(table), get_rel_namespace(shadow));
		MemoryContext old;
		Comparison *comparison = compare(table, other, shadow);

		old = MemoryContextSwitchTo(result->context);
		comparison->digest = pstrdup(comparison->digest);
		if (comparison->difference)
			comparison->difference = pstrdup(comparison->difference);
		result->comparisons = lappend(result->comparisons, memcpy(palloc(sizeof(Comparison)), comparison, sizeof(Comparison)));
		MemoryContextSwitchTo(old);
	}
	es_leave_handler(&saved);
}

/*
 * All events, from the start, into new shadows; up to where these checkpoints are, or to
 * the end.
 */
static void
replay(Projection *projection, List *live)
{
	SavedUser	saved;

	/* Not security-restricted: that would forbid temporary tables. */
	es_become(projection->owner, 0, &saved);
	es_make_shadows(projection->tables, NULL);
	es_become_again(&saved);
	es_delete_checkpoints(projection->name, true);
	es_delete_parked(projection->name, true);
	es_insert_checkpoints(projection, true, es_projection_start(projection));
	es_run_to_end(projection, true, es_projection_end(projection).position, live);
}

/* How many events the first replay has handled. */
static int64
count_of(Projection *projection)
{
	int64		count = 0;
	ListCell   *lc;

	foreach(lc, es_list_checkpoints(projection->name, true))
		count += ((ProjectionCheckpoint *) lfirst(lc))->events;
	return count / projection->partitions;
}

/* What the first replay has given, under other names. */
static void
put_aside(Projection *projection)
{
	SavedUser	saved;
	ListCell   *lc;

	es_become(projection->owner, SECURITY_RESTRICTED_OPERATION, &saved);
	SPI_connect();
	foreach(lc, es_read_model(projection->tables))
		if (SPI_execute(psprintf("ALTER TABLE pg_temp.%s RENAME TO %s", quote_identifier(get_rel_name(lfirst_oid(lc))),
								 quote_identifier(first_replay(lfirst_oid(lc)))), false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not rename a shadow");
	SPI_finish();
	es_become_again(&saved);
}

static char *
first_replay(Oid table)
{
	return psprintf("first_replay_%u", table);
}

static Comparison *
compare(Oid table, Oid other, Oid shadow)
{
	Comparison *comparison = palloc0(sizeof(Comparison));
	uint64		other_rows;
	const char *const labels[] = {table == other ? "live" : "first", table == other ? "replay" : "second"};

	comparison->table = table;
	comparison->digest = es_table_digest(shadow);
	(void) es_tables_differ(other, shadow, labels, &comparison->difference, &other_rows, &comparison->rows);
	return comparison;
}
