/*
 * projection_ddl.c
 *	  create_projection(), alter_projection(), drop_projection(), pause_projection(),
 *	  resume_projection(), reset_projection().
 *
 * All with the projection locked, so that none of it runs meanwhile.
 *
 * An inline projection has no checkpoint: it has seen all events, from a moment on at
 * which nobody else was appending.  So whatever becomes inline first handles what
 * there is, then keeps appenders out, and handles the rest; and what has been inline
 * goes on, while appenders are kept out, from the newest event.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "feed.h"
#include "fmgr.h"
#include "handler.h"
#include "inline.h"
#include "miscadmin.h"
#include "parked.h"
#include "project.h"
#include "projection_checkpoint.h"
#include "read.h"
#include "rebuild.h"
#include "shadow.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_create_projection);
PG_FUNCTION_INFO_V1(event_store_alter_projection);
PG_FUNCTION_INFO_V1(event_store_drop_projection);
PG_FUNCTION_INFO_V1(event_store_pause_projection);
PG_FUNCTION_INFO_V1(event_store_resume_projection);
PG_FUNCTION_INFO_V1(event_store_reset_projection);

/* Arguments, from the first that create and alter have in common. */
enum
{
	ARG_STATEMENT,
	ARG_FUNCTION,
	ARG_TYPES,
	ARG_CATEGORIES,
	ARG_MODE,
	ARG_PARTITIONS,
	ARG_SEARCH_PATH,
	ARG_TABLES,
	ARG_ON_ERROR,
	ARG_MAX_ATTEMPTS,
	ARG_RETRY_DELAY,
	ARG_BATCH_SIZE,
	ARG_BATCH_TIME,
	NUM_ARGS
};

#define CREATE_ARGS			2	/* the first of them */
#define CREATE_START_AFTER	(CREATE_ARGS + NUM_ARGS)
#define ALTER_ARGS			1
#define ALTER_OWNER			(ALTER_ARGS + NUM_ARGS)

static void change_owner(Projection *projection, Oid owner);
static void apply_arguments(FunctionCallInfo fcinfo, int first, Projection *projection);
static TextSet *arg_filter(FunctionCallInfo fcinfo, int n, TextSet *otherwise, const char *name);
static int	arg_choice(FunctionCallInfo fcinfo, int n, int otherwise, const char *name, const char *const *choices);
static int	arg_count(FunctionCallInfo fcinfo, int n, int64 otherwise, const char *name, int max);
static int64 arg_interval(FunctionCallInfo fcinfo, int n, int64 otherwise, const char *name);
static bool can_log_in(Oid role);
static char *pinned_path(const char *path);
static void check_projection(Projection *projection);
static void become_inline(Projection *projection);
static void change_mode(Projection *projection, ProjectionMode mode);
static void change_partitions(Projection *projection, int partitions);
static void clear_failures(Projection *projection);

static Oid
arg_event_table(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		es_null_argument("event_table");
	return PG_GETARG_OID(1);
}

Datum
event_store_create_projection(PG_FUNCTION_ARGS)
{
	Projection	projection = {
		.name = es_arg_projection_name(fcinfo),
		.owner = GetUserId(),
		.mode = ES_MODE_ASYNC,
		.partitions = 1,
		.on_error = ES_STOP,
		.max_attempts = 5,
		.retry_delay = 200 * 1000,
		.max_count = 100000,
		.max_time = 100 * 1000
	};
	EventTable *table = es_event_table_open(arg_event_table(fcinfo), AccessShareLock, ES_FOR_READING);

	PreventCommandIfReadOnly("create_projection()");
	PreventCommandIfParallelMode("create_projection()");
	projection.event_table = table->relid;
	projection.search_path = pinned_path(NULL);
	projection.start_after = es_arg_int64(fcinfo, CREATE_START_AFTER, 0);
	es_event_table_close(table);
	apply_arguments(fcinfo, CREATE_ARGS, &projection);
	check_projection(&projection);

	es_lock_projection(projection.name);
	if (es_find_projection(projection.name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("projection \"%s\" already exists", projection.name)));
	es_delete_projection(projection.name);	/* what half a restore may have left of one */
	es_insert_projection(&projection);
	es_insert_checkpoints(&projection, false, es_projection_start(&projection));
	if (projection.mode == ES_MODE_INLINE)
		become_inline(&projection);
	PG_RETURN_VOID();
}

Datum
event_store_alter_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "alter_projection()");
	ProjectionMode old_mode = projection->mode;
	int			old_partitions = projection->partitions;
	ProjectionMode mode;
	int			partitions;

	if (!PG_ARGISNULL(ALTER_OWNER))
		change_owner(projection, PG_GETARG_OID(ALTER_OWNER));
	apply_arguments(fcinfo, ALTER_ARGS, projection);
	mode = projection->mode;
	partitions = projection->partitions;
	check_projection(projection);
	if (projection->shadow_schema)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is being rebuilt", projection->name),
				 errhint("Wait until it is done, or call event_store.cancel_rebuild('%s').", projection->name)));

	/* What has been handled so far was handled so. */
	projection->mode = old_mode;
	projection->partitions = old_partitions;
	es_update_projection(projection);
	if (partitions != old_partitions)
		change_partitions(projection, partitions);
	if (mode != old_mode)
		change_mode(projection, mode);
	PG_RETURN_VOID();
}

/* To a role whose member one is: its rights are what the handler runs with. */
static void
change_owner(Projection *projection, Oid owner)
{
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be member of role \"%s\"", GetUserNameFromId(owner, false))));
	projection->owner = owner;
}

/* What is NULL stays as it is. */
static void
apply_arguments(FunctionCallInfo fcinfo, int first, Projection *projection)
{
#define GIVEN(arg)	(!PG_ARGISNULL(first + (arg)))
	if (GIVEN(ARG_STATEMENT) && GIVEN(ARG_FUNCTION))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a projection has either a statement or a function, not both")));
	if (GIVEN(ARG_STATEMENT))
	{
		projection->statement = text_to_cstring(PG_GETARG_TEXT_PP(first + ARG_STATEMENT));
		projection->function = NULL;
	}
	else if (GIVEN(ARG_FUNCTION))
	{
		projection->function = es_handler_signature(PG_GETARG_OID(first + ARG_FUNCTION));
		projection->statement = NULL;
	}
	else if (!projection->statement && !projection->function)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a projection needs a statement or a function")));
	projection->types = arg_filter(fcinfo, first + ARG_TYPES, projection->types, "types");
	projection->categories = arg_filter(fcinfo, first + ARG_CATEGORIES, projection->categories, "categories");
	projection->mode = arg_choice(fcinfo, first + ARG_MODE, projection->mode, "mode", es_projection_modes);
	projection->partitions = arg_count(fcinfo, first + ARG_PARTITIONS, projection->partitions, "partitions", ES_MAX_PARTITIONS);
	if (GIVEN(ARG_SEARCH_PATH))
		projection->search_path = pinned_path(text_to_cstring(PG_GETARG_TEXT_PP(first + ARG_SEARCH_PATH)));
	if (GIVEN(ARG_TABLES))
	{
		projection->tables = PG_GETARG_ARRAYTYPE_P(first + ARG_TABLES);
		if (ArrayGetNItems(ARR_NDIM(projection->tables), ARR_DIMS(projection->tables)) == 0)
			projection->tables = NULL;
		else
			es_check_read_model(projection->tables, projection->owner);
	}
	projection->on_error = arg_choice(fcinfo, first + ARG_ON_ERROR, projection->on_error, "on_error", es_error_policies);
	projection->max_attempts = arg_count(fcinfo, first + ARG_MAX_ATTEMPTS, projection->max_attempts, "max_attempts", 1000);
	projection->retry_delay = arg_interval(fcinfo, first + ARG_RETRY_DELAY, projection->retry_delay, "retry_delay");
	projection->max_count = arg_count(fcinfo, first + ARG_BATCH_SIZE, projection->max_count, "batch_size", 1000000);
	projection->max_time = arg_interval(fcinfo, first + ARG_BATCH_TIME, projection->max_time, "batch_time");
#undef GIVEN
}

/* An empty one is none. */
static TextSet *
arg_filter(FunctionCallInfo fcinfo, int n, TextSet *otherwise, const char *name)
{
	TextSet    *filter = PG_ARGISNULL(n) ? otherwise : es_arg_text_set(fcinfo, n, name);

	return filter && filter->n > 0 ? filter : NULL;
}

static int
arg_choice(FunctionCallInfo fcinfo, int n, int otherwise, const char *name, const char *const *choices)
{
	StringInfoData all;
	char	   *given;

	if (PG_ARGISNULL(n))
		return otherwise;
	given = text_to_cstring(PG_GETARG_TEXT_PP(n));
	initStringInfo(&all);
	for (int i = 0; choices[i]; i++)
	{
		if (strcmp(given, choices[i]) == 0)
			return i;
		appendStringInfo(&all, "%s\"%s\"", i == 0 ? "" : ", ", choices[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must be one of %s, not \"%s\"", name, all.data, given)));
}

static int
arg_count(FunctionCallInfo fcinfo, int n, int64 otherwise, const char *name, int max)
{
	int			given;

	if (PG_ARGISNULL(n))
		return otherwise;
	given = PG_GETARG_INT32(n);
	if (given < 1 || given > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be from 1 to %d, not %d", name, max, given)));
	return given;
}

static int64
arg_interval(FunctionCallInfo fcinfo, int n, int64 otherwise, const char *name)
{
	int64		given;

	if (PG_ARGISNULL(n))
		return otherwise;
	given = es_interval_us(PG_GETARG_INTERVAL_P(n));
	if (given < 1000 || given > USECS_PER_HOUR)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be from a millisecond to an hour, not %s", name,
						DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(n))))));
	return given;
}

/*
 * A search_path as it is stored: with pg_temp at its end, so that no temporary table can
 * shadow another one.  NULL: the schemas that the session finds names in.
 */
static char *
pinned_path(const char *path)
{
	StringInfoData pinned;
	List	   *schemas = NIL;
	ListCell   *lc;

	if (path == NULL)
		foreach(lc, fetch_search_path(false))
			schemas = lappend(schemas, get_namespace_name(lfirst_oid(lc)));
	else if (!SplitIdentifierString(pstrdup(path), ',', &schemas))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("search_path must be a list of schemas, not \"%s\"", path)));
	initStringInfo(&pinned);
	foreach(lc, schemas)
		if (lfirst(lc) && strncmp(lfirst(lc), "pg_temp", strlen("pg_temp")) != 0)
			appendStringInfo(&pinned, "%s, ", quote_identifier(lfirst(lc)));
	appendStringInfoString(&pinned, "pg_temp");
	return pinned.data;
}

/* What it needs to be run, as far as that can be known now. */
static void
check_projection(Projection *projection)
{
	if (projection->mode == ES_MODE_ASYNC && !can_log_in(projection->owner))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" cannot log in", GetUserNameFromId(projection->owner, false)),
				 errdetail("A projection runs in the background in a session of its owner."),
				 errhint("ALTER ROLE ... LOGIN (it needs no password), or choose another mode.")));
	if (projection->mode == ES_MODE_INLINE)
		es_check_inline(projection);
	es_check_handler(projection);
}

/* The event at or before start_after. */
Checkpoint
es_projection_start(Projection *projection)
{
	es_check_not_negative("start_after", projection->start_after);
	return es_projection_at(projection, projection->start_after);
}

/* The newest event that can be read; as the owner sees it. */
Checkpoint
es_projection_end(Projection *projection)
{
	SavedSession saved;
	EventTable *table;
	Checkpoint	newest;

	es_enter_handler(projection, NULL, &saved);
	table = es_event_table_open(projection->event_table, AccessShareLock, ES_FOR_READING);
	newest = es_newest_checkpoint(table);
	es_event_table_close(table);
	es_leave_handler(&saved);
	return newest;
}

/* Is the event that the checkpoint stands on there? */
bool
es_is_of_log(Projection *projection, ProjectionCheckpoint *at)
{
	SavedSession saved;
	EventTable *table;
	Snapshot	snapshot;
	Checkpoint	newest;

	es_enter_handler(projection, NULL, &saved);
	table = es_event_table_open(projection->event_table, AccessShareLock, ES_FOR_READING);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	newest = es_newest_event(table, snapshot, at->position);
	UnregisterSnapshot(snapshot);
	es_event_table_close(table);
	es_leave_handler(&saved);
	return newest.position > 0 && memcmp(&newest.event_id, &at->event_id, UUID_LEN) == 0;
}

/* The newest event at or before a position that there may be; as the owner sees it. */
Checkpoint
es_projection_at(Projection *projection, int64 position)
{
	SavedSession saved;
	EventTable *table;
	int64		last_value;
	int64		mark;
	Snapshot	snapshot;
	Checkpoint	at;

	es_enter_handler(projection, NULL, &saved);
	table = es_event_table_open(projection->event_table, AccessShareLock, ES_FOR_READING);
	snapshot = es_feed_snapshot(table, &mark, &last_value);
	if (position > last_value)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position " INT64_FORMAT " is ahead of the event table, whose last one is " INT64_FORMAT,
						position, last_value),
				 errhint("event_store.high_water_mark() is the position to begin at for what comes from now on.")));
	at = es_newest_event(table, snapshot, Min(position, mark));
	UnregisterSnapshot(snapshot);
	es_event_table_close(table);
	es_leave_handler(&saved);
	return at;
}

/*
 * No other transaction appends any more, to the end of this one, and none has appended what
 * cannot be read yet.
 */
void
es_keep_appenders_out(Projection *projection)
{
	es_check_not_in_flight(projection);
	LockRelationOid(projection->event_table, ShareRowExclusiveLock);
}

/* Its own events it could not read. */
void
es_check_not_in_flight(Projection *projection)
{
	if (es_in_flight(projection->event_table))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("projection \"%s\" cannot be changed in a transaction that has appended to its event table",
						projection->name),
				 errhint("Commit first. If it is its own handler that has appended, let it catch up before.")));
}

/* First all there is, so that appenders have to wait for the rest only. */
static void
become_inline(Projection *projection)
{
	es_check_isolation("An inline projection");
	es_run_to_end(projection, false, PG_INT64_MAX, NIL);
	es_keep_appenders_out(projection);
	es_run_to_end(projection, false, PG_INT64_MAX, NIL);
	es_check_not_in_flight(projection);
	es_delete_checkpoints(projection->name, false);
	es_create_inline_trigger(projection);
}

/* Roles that cannot cannot run background workers either, up to 16. */
static bool
can_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		can = HeapTupleIsValid(tuple) && es_role_can_work((Form_pg_authid) GETSTRUCT(tuple));

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return can;
}

static void
change_mode(Projection *projection, ProjectionMode mode)
{
	ProjectionMode old = projection->mode;

	projection->mode = mode;
	es_update_projection(projection);
	if (mode == ES_MODE_INLINE)
	{
		es_check_not_paused(projection);
		become_inline(projection);
	}
	else if (old == ES_MODE_INLINE)
	{
		es_keep_appenders_out(projection);
		es_drop_inline_trigger(projection);
		es_insert_checkpoints(projection, false, es_projection_end(projection));
	}
}

/*
 * Brings all partitions to the position of the one that is ahead; from there on others can
 * share the streams.
 */
static void
change_partitions(Projection *projection, int partitions)
{
	Checkpoint	ahead = {0};
	int64		events = 0;
	int64		batches = 0;
	int64		errors = 0;
	ProjectionCheckpoint *first;
	ListCell   *lc;

	if (projection->mode != ES_MODE_INLINE)
	{
		foreach(lc, es_list_checkpoints(projection->name, false))
		{
			ProjectionCheckpoint *at = lfirst(lc);

			if (at->position > ahead.position)
			{
				ahead.position = at->position;
				ahead.event_id = at->event_id;
			}
		}
		es_check_isolation("A change of partitions");
		foreach(lc, es_list_checkpoints(projection->name, false))
			if (((ProjectionCheckpoint *) lfirst(lc))->position != ahead.position)
				es_check_not_paused(projection);
		es_run_to_end(projection, false, ahead.position, NIL);
		foreach(lc, es_list_checkpoints(projection->name, false))
		{
			ProjectionCheckpoint *at = lfirst(lc);

			events += at->events;
			batches += at->batches;
			errors += at->errors;
			if (at->position != ahead.position)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_IN_USE),
						 errmsg("the partitions of projection \"%s\" cannot be brought to one position now",
								projection->name),
						 errdetail("A transaction is in flight that began to append before others that have been handled already."),
						 errhint("Try again.")));
		}
		es_delete_checkpoints(projection->name, false);
	}
	projection->partitions = partitions;
	es_update_projection(projection);
	if (projection->mode == ES_MODE_INLINE)
		return;
	es_insert_checkpoints(projection, false, ahead);
	first = es_find_checkpoint(projection->name, false, 1);
	first->events = events;
	first->batches = batches;
	first->errors = errors;
	es_save_checkpoint(first);
}

Datum
event_store_drop_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "drop_projection()");

	if (projection->shadow_schema)
		es_cancel_rebuild(projection);
	if (projection->mode == ES_MODE_INLINE)
		es_drop_inline_trigger(projection);
	es_delete_projection(projection->name);
	PG_RETURN_VOID();
}

Datum
event_store_pause_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "pause_projection()");

	if (projection->mode == ES_MODE_INLINE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is inline and cannot be paused", projection->name),
				 errdetail("It would never see what is appended meanwhile."),
				 errhint("Change its mode to \"manual\".")));
	projection->paused = true;
	es_update_projection(projection);
	PG_RETURN_VOID();
}

/* Goes on, also after it has failed, or has been restored. */
Datum
event_store_resume_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "resume_projection()");

	projection->paused = projection->restored = false;
	es_update_projection(projection);
	clear_failures(projection);
	PG_RETURN_VOID();
}

static void
clear_failures(Projection *projection)
{
	for (int rebuild = 0; rebuild <= 1; rebuild++)
	{
		ListCell   *lc;

		foreach(lc, es_list_checkpoints(projection->name, rebuild))
		{
			ProjectionCheckpoint *at = lfirst(lc);

			at->attempts = 0;
			at->failed = false;
			at->retry_at = 0;
			es_save_checkpoint(at);
		}
	}
}

/* The read model is the owner's affair; what was parked behind the position comes again. */
Datum
event_store_reset_projection(PG_FUNCTION_ARGS)
{
	Projection *projection = es_arg_projection(fcinfo, "reset_projection()");
	int64		position = es_arg_int64(fcinfo, 1, 0);
	Checkpoint	at;
	ListCell   *lc;

	if (projection->mode == ES_MODE_INLINE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is inline and has no checkpoint", projection->name),
				 errhint("event_store.rebuild_projection() makes its tables anew.")));
	es_check_not_negative("position", position);
	at = es_projection_at(projection, position);
	foreach(lc, es_list_checkpoints(projection->name, false))
	{
		ProjectionCheckpoint *row = lfirst(lc);

		row->position = at.position;
		row->event_id = at.event_id;
		es_save_checkpoint(row);
	}
	foreach(lc, es_list_parked(projection->name, false))
	{
		int64		parked = ((ParkedEvent *) lfirst(lc))->error.position;

		if (parked > position)
			es_delete_parked_event(projection->name, parked);
	}
	clear_failures(projection);
	es_projections_changed_at_end();
	PG_RETURN_VOID();
}
