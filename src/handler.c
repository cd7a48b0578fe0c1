/*
 * handler.c
 *	  Handlers of projections: SQL statements and functions of users.
 *
 * A handler runs as the owner of its projection, with the search_path that he has
 * chosen.  In the background, in a session of the owner that nobody else uses, that is
 * all.  Anywhere else it runs security-restricted as well: it cannot become anybody else, nor leave
 * behind deferred triggers or temporary tables, to be run or found by others; nor
 * could an error of a deferred trigger be told from one of the caller's.  Settings that it
 * changes are put back in any case.
 *
 * A statement sees the batch as a table named events.  Its plan is kept, in this
 * backend, while the projection has that statement; and made anew when a batch has ten
 * times as many or as few events as the one it was made for, since the planner
 * takes the number for the number of rows.
 *
 * A function is looked up by its signature for every batch, and checked again.  It
 * is called through an expression, as the executor would call it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "aggregate.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "handler.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* A statement's plan, and what it was made for. */
typedef struct StatementPlan
{
	char	   *projection;
	bool		rebuild;
	char	   *statement;
	SPIPlanPtr	plan;
	int64		count;			/* of the batch */
	int			in_use;			/* handlers may run one within another */
} StatementPlan;

static List *plans = NIL;		/* in TopMemoryContext */

bool		es_is_projector = false;

/* For the error context. */
typedef struct Running
{
	Projection *projection;
	EventBatch *batch;
	bool		on_event;		/* the one in the batch's slot */
} Running;

static void run_statement(Projection *projection, bool rebuild, EventBatch *batch);
static void execute(Projection *projection, StatementPlan *plan);
static StatementPlan *find_plan(Projection *projection, bool rebuild);
static void drop_plan(StatementPlan *plan);
static SPIPlanPtr prepare(Projection *projection);
static void register_events(EventBatch *batch);
static int64 run_function(Projection *projection, Running *running, MonotonicTime deadline);
static Oid	look_up_function(Projection *projection);
static void check_function(Projection *projection, Oid funcid);
static void describe_running(void *arg);

/*
 * From here on everything happens as the owner of the projection.  What is in
 * first_schema, if there is one, is found before all others.  An error puts
 * everything back by itself, at the abort.
 */
void
es_enter_handler(Projection *projection, const char *first_schema, SavedSession *saved)
{
	char	   *path = projection->search_path;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(projection->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of projection \"%s\", role with OID %u, does not exist",
						projection->name, projection->owner),
				 errhint("A superuser can give it to another one: event_store.alter_projection('%s', owner => ...).",
						 projection->name)));
	GetUserIdAndSecContext(&saved->userid, &saved->context);
	if (!es_is_projector || saved->userid != projection->owner || saved->context != 0 ||
		projection->mode == ES_MODE_INLINE)
		SetUserIdAndSecContext(projection->owner, saved->context |
							   SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	saved->nest_level = NewGUCNestLevel();
	if (first_schema)
		path = psprintf("%s, %s", quote_identifier(first_schema), path);
	(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
es_leave_handler(SavedSession *saved)
{
	AtEOXact_GUC(false, saved->nest_level);
	SetUserIdAndSecContext(saved->userid, saved->context);
}

/* Is it one that can be run?  As the owner. */
void
es_check_handler(Projection *projection)
{
	SavedSession saved;

	es_enter_handler(projection, NULL, &saved);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (projection->function)
		(void) look_up_function(projection);
	else
	{
		SPI_connect();
		register_events(es_batch_begin());
		(void) prepare(projection);
		SPI_finish();
	}
	PopActiveSnapshot();
	es_leave_handler(&saved);
}

/*
 * Runs the handler over a batch; returns how many of its events it has got through:
 * all, but that a function does not begin another one after the deadline.  Between
 * es_enter_handler() and es_leave_handler().
 */
int64
es_run_handler(Projection *projection, bool rebuild, EventBatch *batch, MonotonicTime deadline)
{
	Running		running = {.projection = projection,.batch = batch};
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = describe_running,
		.arg = &running
	};
	int64		done = batch->count;

	running.on_event = batch->count == 1 && es_batch_seek(batch, 0);
	error_context_stack = &context;
	PushActiveSnapshot(GetTransactionSnapshot());
	if (projection->function)
		done = run_function(projection, &running, deadline);
	else
		run_statement(projection, rebuild, batch);
	PopActiveSnapshot();
	error_context_stack = context.previous;
	return done;
}

static void
describe_running(void *arg)
{
	Running    *running = arg;

	if (running->on_event)
		es_event_context(running->batch->slot, running->projection->name);
	else
		errcontext("a batch of " INT64_FORMAT " events in projection \"%s\"",
				   running->batch->count, running->projection->name);
}

static void
run_statement(Projection *projection, bool rebuild, EventBatch *batch)
{
	StatementPlan *plan = find_plan(projection, rebuild);

	SPI_connect();
	register_events(batch);
	if (plan && plan->in_use == 0 &&
		(batch->count > plan->count * 10 || batch->count < plan->count / 10))
	{
		drop_plan(plan);
		plan = NULL;
	}
	if (plan == NULL)
	{
		SPIPlanPtr	prepared = prepare(projection);
		MemoryContext old;

		SPI_keepplan(prepared);
		old = MemoryContextSwitchTo(TopMemoryContext);
		plan = palloc(sizeof(StatementPlan));
		plan->projection = pstrdup(projection->name);
		plan->rebuild = rebuild;
		plan->statement = pstrdup(projection->statement);
		plan->plan = prepared;
		plan->count = batch->count;
		plan->in_use = 0;
		plans = lcons(plan, plans);
		MemoryContextSwitchTo(old);
	}
	execute(projection, plan);
	SPI_finish();
}

static void
execute(Projection *projection, StatementPlan *plan)
{
	SPIExecuteOptions options = {.dest = None_Receiver};
	int			result = 0;

	plan->in_use++;
	PG_TRY();
	{
		result = SPI_execute_plan_extended(plan->plan, &options);
	}
	PG_FINALLY();
	{
		plan->in_use--;
	}
	PG_END_TRY();
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement of projection \"%s\" cannot be run: %s",
						projection->name, SPI_result_code_string(result))));
}

/* For that very statement; one for another is of no use any more. */
static StatementPlan *
find_plan(Projection *projection, bool rebuild)
{
	ListCell   *lc;

	foreach(lc, plans)
	{
		StatementPlan *plan = lfirst(lc);

		if (plan->rebuild != rebuild || strcmp(plan->projection, projection->name) != 0)
			continue;
		if (strcmp(plan->statement, projection->statement) == 0)
			return plan;
		if (plan->in_use == 0)
			drop_plan(plan);
		return NULL;
	}
	return NULL;
}

static void
drop_plan(StatementPlan *plan)
{
	plans = list_delete_ptr(plans, plan);
	SPI_freeplan(plan->plan);
	pfree(plan->projection);
	pfree(plan->statement);
	pfree(plan);
}

static SPIPlanPtr
prepare(Projection *projection)
{
	SPIPlanPtr	plan = SPI_prepare(projection->statement, 0, NULL);
	ListCell   *lc;

	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement of projection \"%s\" cannot be prepared: %s",
						projection->name, SPI_result_code_string(SPI_result))));
	foreach(lc, SPI_plan_get_plan_sources(plan))
	{
		RawStmt    *raw = ((CachedPlanSource *) lfirst(lc))->raw_parse_tree;

		/* These do not see the events, or cannot be run by SPI. */
		if (raw && (IsA(raw->stmt, TransactionStmt) || IsA(raw->stmt, CopyStmt) ||
					IsA(raw->stmt, DeclareCursorStmt) || IsA(raw->stmt, PrepareStmt)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the statement of projection \"%s\" must not be %s", projection->name,
							IsA(raw->stmt, CopyStmt) ? "COPY" :
							IsA(raw->stmt, DeclareCursorStmt) ? "DECLARE CURSOR" :
							IsA(raw->stmt, PrepareStmt) ? "PREPARE" :
							"one that begins or ends a transaction")));
	}
	if (list_length(SPI_plan_get_plan_sources(plan)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the statement of projection \"%s\" is empty", projection->name)));
	return plan;
}

/* Statements of this SPI connection see the batch under that name. */
static void
register_events(EventBatch *batch)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = "events";
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = batch->desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = batch->count;
	relation->reldata = batch->events;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the events");
}

static int64
run_function(Projection *projection, Running *running, MonotonicTime deadline)
{
	EventBatch *batch = running->batch;
	Oid			funcid = look_up_function(projection);
	ParamListInfo params = makeParamList(1);
	Param	   *param = makeNode(Param);
	ExprContext *econtext = CreateStandaloneExprContext();
	ExprState  *call;
	int64		done = 0;

	param->paramkind = PARAM_EXTERN;
	param->paramid = 1;
	param->paramtype = params->params[0].ptype = batch->desc->tdtypeid;
	param->paramtypmod = -1;
	param->location = -1;
	call = ExecInitExprWithParams(expression_planner((Expr *)
													 makeFuncExpr(funcid, get_func_rettype(funcid), list_make1(param),
																  InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL)),
								  params);
	econtext->ecxt_param_list_info = params;

	for (running->on_event = es_batch_seek(batch, 0); running->on_event;
		 running->on_event = es_batch_next(batch))
	{
		MemoryContext old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		params->params[0].value = heap_copy_tuple_as_datum(ExecFetchSlotHeapTuple(batch->slot, false, NULL), batch->desc);
		params->params[0].isnull = false;
		(void) ExecEvalExpr(call, econtext, &isnull);
		MemoryContextSwitchTo(old);
		ResetExprContext(econtext);
		CommandCounterIncrement();
		done++;
		if (done < batch->count && es_now() >= deadline)
			break;
	}
	FreeExprContext(econtext, true);
	return done;
}

/* The function that the stored signature means now, checked. */
static Oid
look_up_function(Projection *projection)
{
	LOCAL_FCINFO(fcinfo, 1);
	Oid			funcid;

	/* Not by DirectFunctionCall1(), to which NULL is an internal error. */
	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(projection->function);
	fcinfo->args[0].isnull = false;
	funcid = DatumGetObjectId(to_regprocedure(fcinfo));
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s, the function of projection \"%s\", does not exist",
						projection->function, projection->name),
				 errhint("If it has another name or schema now, tell with event_store.alter_projection(..., function => ...).")));
	check_function(projection, funcid);
	return funcid;
}

/*
 * Why a function cannot be a handler; NULL if it can.  Whoever owns it can replace it,
 * and so have run what he likes as the projection's owner.
 */
static const char *
function_problem(Form_pg_proc proc, Oid owner)
{
	if (proc->prokind != PROKIND_FUNCTION)
		return "It is not an ordinary function.";
	if (proc->pronargs != 1 || OidIsValid(proc->provariadic) ||
		proc->proargtypes.values[0] != es_event_type())
		return "Its parameter is not (event_store.event).";
	if (proc->proretset)
		return "It returns a set.";
	if (isAnyTempNamespace(proc->pronamespace))
		return "It is temporary.";
	if (proc->proowner != owner && !superuser_arg(proc->proowner))
		return "It belongs to another role, which could replace it.";
	return NULL;
}

static void
check_function(Projection *projection, Oid funcid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	const char *problem;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", funcid)));
	problem = function_problem((Form_pg_proc) GETSTRUCT(tuple), projection->owner);
	ReleaseSysCache(tuple);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("%s cannot be the function of projection \"%s\"",
						format_procedure(funcid), projection->name),
				 errdetail_internal("%s", problem),
				 errhint("It must be a function (event event_store.event) that belongs to the owner of the projection or to a superuser.")));
}

/* As it is stored; look_up_function() finds it again, also after a restore. */
char *
es_handler_signature(Oid function)
{
	if (get_func_name(function) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	return format_procedure_qualified(function);
}
