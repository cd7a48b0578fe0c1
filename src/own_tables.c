/*
 * own_tables.c
 *	  The extension's own tables, and acting as their owner.
 *
 * Nobody else has privileges on them.  Functions check what the caller may do,
 * and then act as the owner for one statement of ours, never while code of
 * users can run.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* It is missing while the extension is being dropped. */
Oid
es_own_table(const char *name, bool missing_ok)
{
	Oid			schema = get_namespace_oid("event_store", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (!OidIsValid(relid) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"event_store.%s\" does not exist", name)));
	return relid;
}

/* NULL if it is missing. */
Relation
es_try_open_own_table(const char *name, LOCKMODE lockmode)
{
	Oid			relid = es_own_table(name, true);

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
}

/* An error restores the user by itself, at the abort. */
void
es_become_owner_of(Oid table, SavedUser *saved)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	es_become(owner, SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS, saved);
}

void
es_become(Oid role, int context, SavedUser *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->context);
	SetUserIdAndSecContext(role, saved->context | SECURITY_LOCAL_USERID_CHANGE | context);
}

void
es_become_again(SavedUser *saved)
{
	SetUserIdAndSecContext(saved->userid, saved->context);
}
