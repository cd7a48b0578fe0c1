/*
 * compat.h
 *	  The differences between PostgreSQL 15 to 18 that concern us.
 *
 * The only file that looks at PG_VERSION_NUM.
 */
#ifndef ES_COMPAT_H
#define ES_COMPAT_H

#include "parser/parse_relation.h"
#include "storage/lock.h"
#include "utils/guc.h"

/* The minor versions of November 2024 gave extensions updates in place. */
#if PG_VERSION_NUM < 150009 || \
	(PG_VERSION_NUM >= 160000 && PG_VERSION_NUM < 160005) || PG_VERSION_NUM == 170000
#error "event_store needs PostgreSQL 15.9, 16.5, 17.1 or later"
#endif

/*
 * 16 split permission information off the range table, and error messages look
 * for it; 18 counts the members that are not pruned.  For users of a range table
 * with one entry.
 */
#if PG_VERSION_NUM >= 180000
#define es_init_range_table(estate, rte) \
	do { \
		List	   *perminfos_ = NIL; \
		addRTEPermissionInfo(&perminfos_, (rte)); \
		ExecInitRangeTable((estate), list_make1(rte), perminfos_, bms_make_singleton(1)); \
	} while (0)
#elif PG_VERSION_NUM >= 160000
#define es_init_range_table(estate, rte) \
	do { \
		List	   *perminfos_ = NIL; \
		addRTEPermissionInfo(&perminfos_, (rte)); \
		ExecInitRangeTable((estate), list_make1(rte), perminfos_); \
	} while (0)
#else
#define es_init_range_table(estate, rte) \
	ExecInitRangeTable((estate), list_make1(rte))
#endif

/* 16 added a flag for summarizing indexes. */
#if PG_VERSION_NUM >= 160000
#define es_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false)
#else
#define es_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
#endif

/* 18 instruments index scans. */
#if PG_VERSION_NUM >= 180000
#define es_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define es_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 17 lets index access methods clean up after the inserts of a statement. */
#if PG_VERSION_NUM >= 170000
#define es_index_insert_cleanup(index, info)	index_insert_cleanup(index, info)
#else
#define es_index_insert_cleanup(index, info)	((void) 0)
#endif

/* 16 has one ownership check, and one of privileges, for all catalogs. */
#if PG_VERSION_NUM >= 160000
#define es_function_aclcheck(funcid, roleid) \
	object_aclcheck(ProcedureRelationId, funcid, roleid, ACL_EXECUTE)
#define es_database_aclcheck(dboid, roleid) \
	object_aclcheck(DatabaseRelationId, dboid, roleid, ACL_CREATE)
#define es_is_table_owner(relid, roleid) \
	object_ownercheck(RelationRelationId, relid, roleid)
#define es_is_database_owner(dboid, roleid) \
	object_ownercheck(DatabaseRelationId, dboid, roleid)
#else
#define es_function_aclcheck(funcid, roleid) \
	pg_proc_aclcheck(funcid, roleid, ACL_EXECUTE)
#define es_database_aclcheck(dboid, roleid) \
	pg_database_aclcheck(dboid, roleid, ACL_CREATE)
#define es_is_table_owner(relid, roleid) \
	pg_class_ownercheck(relid, roleid)
#define es_is_database_owner(dboid, roleid) \
	pg_database_ownercheck(dboid, roleid)
#endif

/* 18 asks whether a deferrable one will do; ours are not. */
#if PG_VERSION_NUM >= 180000
#define es_primary_key_index(rel)	RelationGetPrimaryKeyIndex(rel, false)
#else
#define es_primary_key_index(rel)	RelationGetPrimaryKeyIndex(rel)
#endif

/*
 * The next lock of one of a process's lists, NULL after the last; 16 made them
 * doubly linked lists.  The list of a prepared transaction that is being set up
 * is all zeros for a moment, and empty.
 */
#if PG_VERSION_NUM >= 160000
static inline PROCLOCK *
es_next_proclock(dlist_head *list, PROCLOCK *lock)
{
	dlist_node *next = lock ? lock->procLink.next : list->head.next;

	return next == NULL || next == &list->head ? NULL : dlist_container(PROCLOCK, procLink, next);
}
#else
static inline PROCLOCK *
es_next_proclock(SHM_QUEUE *list, PROCLOCK *lock)
{
	SHM_QUEUE  *next = lock ? lock->procLink.next : list->next;

	return next == NULL || next == list ? NULL : (PROCLOCK *) ((char *) next - offsetof(PROCLOCK, procLink));
}
#endif

/* 17 has a time-out that ends whoever is in a transaction for too long. */
#if PG_VERSION_NUM >= 170000
#define ES_NO_TRANSACTION_TIMEOUT	{"transaction_timeout", "0"},
#else
#define ES_NO_TRANSACTION_TIMEOUT
#endif

/* 17 lets a background process be a role that cannot log in. */
#if PG_VERSION_NUM >= 170000
#define ES_BYPASS_LOGIN			BGWORKER_BYPASS_ROLELOGINCHECK
#define es_role_can_work(role)	true
#else
#define ES_BYPASS_LOGIN			0
#define es_role_can_work(role)	((role)->rolcanlogin)
#endif

/* Only later minor versions have it. */
#ifndef GUC_ALLOW_IN_PARALLEL
#define GUC_ALLOW_IN_PARALLEL 0
#endif

/* 18 replaces pg_attribute_noreturn() by a prefix. */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

#endif							/* ES_COMPAT_H */
