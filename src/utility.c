/*
 * utility.c
 *	  Commands of others that concern the workers.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE and CREATE
 * DATABASE ... TEMPLATE want a database for themselves: its worker and its
 * projectors leave, and no other comes until the command's transaction has ended.
 *
 * COMMIT PREPARED and ROLLBACK PREPARED raise marks, DROP EXTENSION leaves the
 * worker without anything to do: they wake it.
 *
 * A hook, since event triggers do not fire for databases and transactions, and
 * ours are gone at the end of DROP EXTENSION.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "projector_state.h"
#include "shared_state.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "xact_state.h"

/*
 * As long as such a command itself waits for others to leave; and how long
 * projectors have to finish a batch.
 */
#define PATIENCE			INT64CONST(5000000)
#define PROJECTORS_PATIENCE	INT64CONST(2000000)

static ProcessUtility_hook_type previous_hook = NULL;

/* List of DatabaseSlot, in TopTransactionContext. */
static List *kept_out = NIL;

static void process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
							ProcessUtilityContext context, ParamListInfo params,
							QueryEnvironment *environment, DestReceiver *dest,
							QueryCompletion *completion);
static pg_noinline Oid database_wanted(Node *statement);
static bool may_want(Oid database, Node *statement);
static bool may_create_databases(void);
static bool is_template(Oid database);
static void wait_until_left(DatabaseSlot *db);
static void let_worker_in(int code, Datum arg);
static void let_in_at_end(DatabaseSlot *db);
static void at_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg);
static bool ends_prepared(Node *statement);
static bool may_drop_extension(Node *statement);

void
es_utility_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterResourceReleaseCallback(at_release, NULL);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest,
				QueryCompletion *completion)
{
	ProcessUtility_hook_type next = previous_hook ? previous_hook : standard_ProcessUtility;
	Node	   *statement = pstmt->utilityStmt;
	Oid			database = database_wanted(statement);
	DatabaseSlot *db = OidIsValid(database) ? es_database_slot(database, true) : NULL;
	bool		wake = ends_prepared(statement);

	if (may_drop_extension(statement))
	{
		es_rescan_at_end();
		es_projections_changed_at_end();
	}
	if (db)
	{
		PG_ENSURE_ERROR_CLEANUP(let_worker_in, PointerGetDatum(db));
		{
			wait_until_left(db);
			next(pstmt, query, read_only_tree, context, params, environment, dest, completion);
			let_in_at_end(db);
		}
		PG_END_ENSURE_ERROR_CLEANUP(let_worker_in, PointerGetDatum(db));
		if (IsA(statement, DropdbStmt))
			es_forget_database(db, database);
	}
	else
		next(pstmt, query, read_only_tree, context, params, environment, dest, completion);
	if (wake)
		es_wake_for_prepared();
}

/* The database that the command wants for itself. */
static Oid
database_wanted(Node *statement)
{
	const char *name = NULL;
	ListCell   *lc;
	Oid			database;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) statement)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) statement)->subname;
			break;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) statement)->options)
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) statement)->dbname;
			break;
		case T_CreatedbStmt:
			name = "template1";
			foreach(lc, ((CreatedbStmt *) statement)->options)
			{
				DefElem    *option = lfirst_node(DefElem, lc);

				if (strcmp(option->defname, "template") == 0 && option->arg)
					name = defGetString(option);
			}
			break;
		default:
			break;
	}
	if (name == NULL)
		return InvalidOid;
	database = get_database_oid(name, true);
	return OidIsValid(database) && may_want(database, statement) ? database : InvalidOid;
}

/* Whoever may not run the command shall not disturb the worker by trying. */
static bool
may_want(Oid database, Node *statement)
{
	bool		creates = IsA(statement, CreatedbStmt);

	if (superuser())
		return true;
	if ((creates || IsA(statement, RenameStmt)) && !may_create_databases())
		return false;
	return es_is_database_owner(database, GetUserId()) || (creates && is_template(database));
}

static bool
may_create_databases(void)
{
	HeapTuple	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	bool		may = HeapTupleIsValid(role) && ((Form_pg_authid) GETSTRUCT(role))->rolcreatedb;

	if (HeapTupleIsValid(role))
		ReleaseSysCache(role);
	return may;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		is = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return is;
}

/*
 * Waits until the worker and the projectors have gone; for so long as the command itself
 * would.  A projector in the midst of a long batch is terminated: then the batch
 * is run anew, later.
 */
static void
wait_until_left(DatabaseSlot *db)
{
	MonotonicTime deadline = es_now() + PATIENCE;
	bool		terminate = false;

	ConditionVariablePrepareToSleep(&es_shared->left);
	for (;;)
	{
		MonotonicTime left = deadline - es_now();
		bool		gone;

		LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
		gone = !es_evict_projectors(db->database, terminate) && db->worker_pid == 0;
		if (db->worker_latch)
			SetLatch(db->worker_latch);
		LWLockRelease(es_shared->lock);
		if (gone || left <= 0)
			break;
		terminate = ConditionVariableTimedSleep(&es_shared->left,
												Min(left, PROJECTORS_PATIENCE) / 1000 + 1,
												PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
let_worker_in(int code, Datum arg)
{
	DatabaseSlot *db = (DatabaseSlot *) DatumGetPointer(arg);

	LWLockAcquire(es_shared->lock, LW_EXCLUSIVE);
	Assert(db->keep_out > 0);
	db->keep_out--;
	es_free_database(db);
	if (es_shared->launcher_latch)
		SetLatch(es_shared->launcher_latch);
	LWLockRelease(es_shared->lock);
}

/* Until the transaction ends a new worker could only wait for its lock. */
static void
let_in_at_end(DatabaseSlot *db)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	kept_out = lappend(kept_out, db);
	MemoryContextSwitchTo(old);
}

static void
at_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	ListCell   *lc;

	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel)
		return;
	foreach(lc, kept_out)
		let_worker_in(0, PointerGetDatum(lfirst(lc)));
	kept_out = NIL;
}

static bool
ends_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		(((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((TransactionStmt *) statement)->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

/*
 * By itself, with its schema, or with its owner.  While there are event tables
 * that takes CASCADE, but with an owner who owns them too.
 */
static bool
may_drop_extension(Node *statement)
{
	if (IsA(statement, DropStmt))
		return ((DropStmt *) statement)->behavior == DROP_CASCADE &&
			(((DropStmt *) statement)->removeType == OBJECT_EXTENSION ||
			 ((DropStmt *) statement)->removeType == OBJECT_SCHEMA);
	return IsA(statement, DropOwnedStmt);
}
