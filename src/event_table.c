/*
 * event_table.c
 *	  Opening event tables, and this backend's cache of what they are.
 *
 * To describe a table (describe_table.c) takes many catalog look-ups.  It is
 * done once per backend and table, and again after an invalidation of the
 * table, its sequence or pg_subscription_rel.  What invalidates none of them,
 * a second sequence that is made the column's own, the event trigger refuses.
 *
 * es_event_table_open() hands out a copy, since an invalidation may come, and
 * a nested call rebuild the entry, while the caller still works.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_subscription_rel.h"
#include "commands/sequence.h"
#include "compat.h"
#include "errors.h"
#include "event_table.h"
#include "miscadmin.h"
#include "scan.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "xact_state.h"

typedef struct CacheEntry
{
	Oid			relid;			/* hash key */
	bool		valid;
	int64		last_seen;		/* the sequence's last value */
	EventTable	table;
} CacheEntry;

static HTAB *cache = NULL;
static uint64 invalidations = 0;
static uint64 generations = 0;

static void invalidate_relation(Datum arg, Oid relid);
static void invalidate_all(Datum arg, int cacheid, uint32 hashvalue);
static CacheEntry *look_up(Relation rel);
static bool lock_parts(Relation rel);
pg_noreturn static void not_an_event_table(Relation rel, const char *kind);

void
es_event_table_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(CacheEntry)};

	cache = hash_create("event_store event tables", 16, &ctl,
						HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(invalidate_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, invalidate_all, (Datum) 0);
}

static void
invalidate_relation(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	CacheEntry *entry;

	invalidations++;
	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (relid == InvalidOid || relid == entry->relid ||
			relid == entry->table.sequence)
			entry->valid = false;
}

static void
invalidate_all(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate_relation(arg, InvalidOid);
}

/*
 * Opens an event table for a use and checks that the current user may, and
 * that what the use relies on is in order.  The lock stays until the end of
 * the transaction.
 */
EventTable *
es_event_table_open(Oid relid, LOCKMODE lockmode, EventTableUse use)
{
	Relation	rel = try_relation_open(relid, lockmode);
	EventTable *table;

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (use == ES_FOR_APPENDING)
	{
		PreventCommandDuringRecovery("append");
		PreventCommandIfReadOnly("append");
		PreventCommandIfParallelMode("append");
	}
	if (rel->rd_rel->relkind != RELKIND_RELATION)
		not_an_event_table(rel, NULL);
	if (relid == es_table_being_rewritten && use >= ES_FOR_GUARDING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot append to \"%s\" while ALTER TABLE rewrites it",
						RelationGetRelationName(rel)),
				 errtable(rel)));

	/*
	 * A lock brings news of what has changed, but not to a transaction that has
	 * the same lock already; and an upcaster needs no lock that we would notice.
	 */
	if (use == ES_FOR_READING)
		AcceptInvalidationMessages();
	table = palloc(sizeof(EventTable));
	*table = look_up(rel)->table;
	table->rel = rel;
	table->lockmode = use >= ES_FOR_GUARDING ? RowExclusiveLock : AccessShareLock;
	if (table->problem)
		table->problem = pstrdup(table->problem);

	if (!table->is_event_table)
		not_an_event_table(rel, table->is_append_only ?
						   "It is append-only, but has no versions and positions." :
						   "It is an ordinary table.");
	if (use == ES_FOR_READING || use == ES_FOR_APPENDING)
	{
		AclMode		privilege = use == ES_FOR_READING ? ACL_SELECT : ACL_INSERT;
		AclResult	result = pg_class_aclcheck(relid, GetUserId(), privilege);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_TABLE, RelationGetRelationName(rel));
	}
	if (table->problem && use != ES_FOR_LOOKING &&
		(use != ES_FOR_READING || !table->readable))
		es_unguarded(rel, table->problem);
	return table;
}

/*
 * For those who look after all event tables: opens one whose feed can be read,
 * waits for nobody and raises nothing.  NULL, and no lock on it kept, if it is
 * gone or cannot be read; or, with *busy, if somebody has it locked, its
 * sequence, or its indexes.
 */
EventTable *
es_event_table_try_open(Oid relid, bool *busy)
{
	Relation	rel;
	EventTable *table = NULL;

	*busy = !ConditionalLockRelationOid(relid, AccessShareLock);
	if (*busy)
		return NULL;
	rel = try_relation_open(relid, NoLock);
	if (rel && rel->rd_rel->relkind == RELKIND_RELATION)
	{
		*busy = !lock_parts(rel);
		if (!*busy)
		{
			table = palloc(sizeof(EventTable));
			*table = look_up(rel)->table;
			table->rel = rel;
			table->lockmode = AccessShareLock;
			table->problem = NULL;
			if (table->is_event_table && table->readable && !table->subscribed)
				return table;
		}
	}
	if (rel)
		relation_close(rel, NoLock);
	UnlockRelationOid(relid, AccessShareLock);
	return NULL;
}

/* Locks, without waiting, what reading the table's feed, or describing it, locks. */
static bool
lock_parts(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	CacheEntry *entry = hash_search(cache, &relid, HASH_FIND, NULL);
	AttrNumber	column;
	Oid			sequence;
	ListCell   *lc;

	if (entry && entry->valid)
	{
		if (!ConditionalLockRelationOid(entry->table.sequence, AccessShareLock) ||
			!ConditionalLockRelationOid(entry->table.position_index, AccessShareLock))
			return false;
		if (entry->valid)
			return true;
	}
	column = get_attnum(relid, es_columns[ES_POSITION].name);
	if (column != InvalidAttrNumber && es_owned_sequences(relid, column, &sequence) > 0 &&
		!ConditionalLockRelationOid(sequence, AccessShareLock))
		return false;
	foreach(lc, RelationGetIndexList(rel))
		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			return false;
	return true;
}

void
es_unguarded(Relation rel, const char *problem)
{
	ereport(ERROR,
			(errcode(ES_UNGUARDED_EVENT_TABLE),
			 errmsg("event table \"%s\" is not guarded",
					RelationGetRelationName(rel)),
			 errdetail_internal("%s", problem),
			 errhint("Its owner can mend most of that: SELECT * FROM event_store.guard(%s);",
					 quote_literal_cstr(es_qualified_name(rel))),
			 errtable(rel)));
}

/* Schema and name, quoted for use in SQL. */
char *
es_qualified_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/* Closes the relation; the lock stays. */
void
es_event_table_close(EventTable *table)
{
	table_close(table->rel, NoLock);
	table->rel = NULL;
}

static void
not_an_event_table(Relation rel, const char *kind)
{
	if (kind == NULL)
		switch (rel->rd_rel->relkind)
		{
			case RELKIND_VIEW:
				kind = "It is a view.";
				break;
			case RELKIND_MATVIEW:
				kind = "It is a materialized view.";
				break;
			case RELKIND_PARTITIONED_TABLE:
				kind = "It is a partitioned table.";
				break;
			case RELKIND_FOREIGN_TABLE:
				kind = "It is a foreign table.";
				break;
			case RELKIND_SEQUENCE:
				kind = "It is a sequence.";
				break;
			default:
				kind = "It is not a table.";
		}
	ereport(ERROR,
			(errcode(ES_NOT_AN_EVENT_TABLE),
			 errmsg("\"%s\" is not an event table",
					RelationGetRelationName(rel)),
			 errdetail_internal("%s", kind),
			 errhint("Event tables are made by event_store.create_event_table(name)."),
			 errtable(rel)));
}

static CacheEntry *
look_up(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	bool		found;
	CacheEntry *entry = hash_search(cache, &relid, HASH_ENTER, &found);
	EventTable	table;
	uint64		before;

	if (!found)
	{
		entry->valid = false;
		entry->last_seen = 0;
		memset(&entry->table, 0, sizeof(EventTable));
	}
	if (entry->valid)
		return entry;

	/* An invalidation that arrives while we look must not be lost. */
	before = invalidations;
	es_describe_table(rel, ES_PROBLEM_ANY, &table);
	table.generation = ++generations;
	entry = hash_search(cache, &relid, HASH_FIND, NULL);
	if (entry->table.problem)
		pfree(entry->table.problem);
	entry->table = table;
	entry->table.rel = NULL;
	if (table.problem)
		entry->table.problem = MemoryContextStrdup(CacheMemoryContext,
												   table.problem);
	/* setval() mends without invalidating, so problems are looked at again. */
	entry->valid = before == invalidations && table.problem == NULL;
	return entry;
}

/*
 * The last value that the sequence has given out, 0 for none; and whether it
 * has just been logged, as by setval(), and at every 33rd nextval().  Reads the page
 * itself: pg_sequence_last_value() would keep a lock to the end of the
 * transaction, at which other readers would take us for a writer, and wants
 * privileges.
 */
int64
es_sequence_last_value(Oid sequence, bool *logged)
{
	Relation	rel = relation_open(sequence, AccessShareLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	Page		page = BufferGetPage(buffer);
	Form_pg_sequence_data data;
	int64		last;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	data = (Form_pg_sequence_data)
		((char *) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)) +
		 ((HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)))->t_hoff);
	last = data->is_called ? data->last_value : data->last_value - 1;
	if (logged)
		*logged = data->log_cnt == 0;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return last;
}

/*
 * The greatest position between those two that the snapshot shows, 0 for none.
 * By the index, whoever asks: no policy has a say.
 */
int64
es_last_position(EventTable *table, Snapshot snapshot, int64 low, int64 high)
{
	ScanKeyData keys[2];
	EventScan  *scan;
	TupleTableSlot *slot;
	int64		position;

	es_key_int64(&keys[0], 1, BTGreaterEqualStrategyNumber, low);
	es_key_int64(&keys[1], 1, BTLessEqualStrategyNumber, high);
	scan = es_scan_begin(table, table->position_index, snapshot, 2, keys);
	slot = es_scan_next(scan, BackwardScanDirection);
	position = slot ? es_slot_int64(slot, table, ES_POSITION) : 0;

	es_scan_end(scan);
	return position;
}

/*
 * The sequence's last value, for a writer.  Somebody may have set it back, also
 * to a value that no event has, above what this backend has seen: then events
 * would be lost to readers who are past it.  So the writer looks whenever it
 * can have happened, which is seldom.
 */
int64
es_check_sequence(EventTable *table)
{
	bool		logged;
	int64		last = es_sequence_last_value(table->sequence, &logged);
	CacheEntry *entry = hash_search(cache, &table->relid, HASH_FIND, NULL);

	/* Seldom anything is above it, so that is what to look for. */
	if (logged || (entry && last < entry->last_seen))
	{
		int64		greatest = es_last_position(table, SnapshotSelf, last + 1, PG_INT64_MAX);

		last = es_sequence_last_value(table->sequence, NULL);
		if (last < greatest)
			es_unguarded(table->rel,
						 psprintf("Its sequence stands at " INT64_FORMAT ", below the greatest position, " INT64_FORMAT ".",
								  last, greatest));
	}
	if (entry)
		entry->last_seen = last;
	return last;
}

/* Remembers a position that this backend has drawn. */
void
es_note_position(Oid relid, int64 position)
{
	CacheEntry *entry = hash_search(cache, &relid, HASH_FIND, NULL);

	if (entry)
		entry->last_seen = Max(entry->last_seen, position);
}

bool
es_row_security_applies(EventTable *table)
{
	return table->rel->rd_rel->relrowsecurity &&
		check_enable_rls(table->relid, InvalidOid, false) == RLS_ENABLED;
}
