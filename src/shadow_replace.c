/*
 * shadow_replace.c
 *	  Making tables hold what their shadows hold.
 *
 * As REFRESH MATERIALIZED VIEW CONCURRENTLY does it: only what differs is
 * written, by DELETE, UPDATE and INSERT, so that readers go on, and triggers,
 * foreign keys and replicas see ordinary changes.
 *
 * A row that is there with other values is updated.  But where there are other
 * unique indexes it is deleted and inserted, since values could have moved
 * between rows, which no order of updates survives; and where the table refers
 * to others, since these are to change in between.  Not if a foreign key refers
 * to the table: to delete a row would fire its cascades.
 *
 * Tables are deleted from after those that refer to them, then written before
 * those.  From tables that are referred to rows are deleted at the end, when all
 * have moved to other ones; unless values of a unique index could be missing
 * before.  Some contents cannot be reached so, through constraints that are not
 * deferrable: then it is an error.
 *
 * Locks: SHARE ROW EXCLUSIVE on the live tables, which keeps writers out and lets
 * in those who read, or lock rows, as checks of foreign keys do; SHARE on the
 * shadows.  To the end of the transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "shadow.h"
#include "shadow_diff.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

typedef struct Change
{
	Pair		pair;
	bool		update;			/* rows with other values, not delete and insert */
	bool		delete_first;
	Replacement *result;
	Datum		places[4];		/* tid[]: to delete, a and b to update, to insert */
	bool		nulls[4];		/* there are none */
} Change;

static void note_constraints(Change *change);
static List *referring_last(List *changes);
static bool refers(Relation rel, Oid other);
static void find_changes(Change *change);
static void delete_rows(Change *change);
static void write_rows(Change *change);
static void raise_identities(Pair *pair);
static void apply(Change *change, const char *sql, int first, int count);
static void replace_error_context(void *arg);

/*
 * Makes the tables hold what their shadows hold, and returns a Replacement for
 * each, which counts rows that have changed as updated, however that was done.
 */
List *
es_replace_contents(ArrayType *tables, const char *schema)
{
	List	   *results = NIL;
	List	   *changes = NIL;
	ListCell   *cell;

	/* Rows that others have committed since would not be seen, and stay. */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("tables can be replaced by their shadows only at isolation level READ COMMITTED")));
	es_check_read_model(tables, GetUserId());
	foreach(cell, es_read_model(tables))
	{
		Change	   *change = palloc0(sizeof(Change));
		Oid			shadow = es_shadow_of(lfirst_oid(cell), schema);

		if (!OidIsValid(shadow))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("the shadow of table \"%s\" does not exist", get_rel_name(lfirst_oid(cell)))));
		es_open_pair(&change->pair, lfirst_oid(cell), shadow, ShareRowExclusiveLock, ShareLock);
		note_constraints(change);
		change->result = palloc0(sizeof(Replacement));
		change->result->table = lfirst_oid(cell);
		results = lappend(results, change->result);
		changes = lappend(changes, change);
	}
	changes = referring_last(changes);

	SPI_connect();
	foreach(cell, changes)
		find_changes(lfirst(cell));
	for (int i = list_length(changes) - 1; i >= 0; i--)
		if (((Change *) list_nth(changes, i))->delete_first)
			delete_rows(list_nth(changes, i));
	foreach(cell, changes)
		write_rows(lfirst(cell));
	for (int i = list_length(changes) - 1; i >= 0; i--)
		if (!((Change *) list_nth(changes, i))->delete_first)
			delete_rows(list_nth(changes, i));
	SPI_finish();
	foreach(cell, changes)
		es_close_pair(&((Change *) lfirst(cell))->pair);
	return results;
}

/* How the table has to be written. */
static void
note_constraints(Change *change)
{
	Relation	live = change->pair.live;
	TupleDesc	desc = RelationGetDescr(live);
	bool		unique = false;
	bool		identity = false;
	bool		refers_to = false;
	bool		referred_to = false;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(live))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (!index->rd_index->indisprimary &&
			(index->rd_index->indisunique || index->rd_index->indisexclusion))
			unique = true;
		index_close(index, NoLock);
	}
	/* No UPDATE can assign a value to it. */
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attidentity == ATTRIBUTE_IDENTITY_ALWAYS &&
			!list_member_int(change->pair.key, i + 1))
			identity = true;
	for (int i = 0; live->trigdesc && i < live->trigdesc->numtriggers; i++)
	{
		int			type = RI_FKey_trigger_type(live->trigdesc->triggers[i].tgfoid);

		refers_to |= type == RI_TRIGGER_FK;
		referred_to |= type == RI_TRIGGER_PK;
	}
	change->update = referred_to || (!unique && !identity && !refers_to);
	change->delete_first = !referred_to || unique;
}

/* Those that refer to others behind these, but where they do so in a circle. */
static List *
referring_last(List *changes)
{
	List	   *sorted = NIL;

	while (changes != NIL)
	{
		Change	   *next = NULL;
		ListCell   *cell;

		foreach(cell, changes)
		{
			Change	   *change = lfirst(cell);
			bool		free = true;
			ListCell   *other;

			foreach(other, changes)
				if (lfirst(other) != change &&
					refers(change->pair.live, RelationGetRelid(((Change *) lfirst(other))->pair.live)))
					free = false;
			if (free)
			{
				next = change;
				break;
			}
		}
		if (next == NULL)
			next = linitial(changes);
		sorted = lappend(sorted, next);
		changes = list_delete_ptr(changes, next);
	}
	return sorted;
}

static bool
refers(Relation rel, Oid other)
{
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		if (rel->trigdesc->triggers[i].tgconstrrelid == other &&
			RI_FKey_trigger_type(rel->trigdesc->triggers[i].tgfoid) == RI_TRIGGER_FK)
			return true;
	return false;
}

/* What to delete, update and insert.  The places stay good: nobody else writes. */
static void
find_changes(Change *change)
{
	const char *update = change->update ? "true" : "false";
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;

	es_pair_execute(psprintf("SELECT pg_catalog.count(*) FILTER (WHERE b IS NULL),"
							 " pg_catalog.count(*) FILTER (WHERE a IS NOT NULL AND b IS NOT NULL),"
							 " pg_catalog.count(*) FILTER (WHERE a IS NULL),"
							 " pg_catalog.array_agg(a) FILTER (WHERE a IS NOT NULL AND (b IS NULL OR NOT %s)),"
							 " pg_catalog.array_agg(a) FILTER (WHERE a IS NOT NULL AND b IS NOT NULL AND %s),"
							 " pg_catalog.array_agg(b) FILTER (WHERE a IS NOT NULL AND b IS NOT NULL AND %s),"
							 " pg_catalog.array_agg(b) FILTER (WHERE b IS NOT NULL AND (a IS NULL OR NOT %s))"
							 " FROM (%s) d",
							 update, update, update, update, es_pair_differences(&change->pair)),
					0, NULL, NULL);
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	change->result->deleted = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	change->result->updated = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
	change->result->inserted = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
	for (int i = 0; i < 4; i++)
		change->places[i] = SPI_getbinval(row, desc, i + 4, &change->nulls[i]);
}

static void
delete_rows(Change *change)
{
	apply(change, psprintf("DELETE FROM %s a WHERE a.ctid OPERATOR(pg_catalog.=) ANY ($1)",
						   change->pair.live_name), 0, 1);
}

static void
write_rows(Change *change)
{
	Pair	   *pair = &change->pair;

	apply(change, psprintf("UPDATE %s a SET %s FROM %s b,"
						   " ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS d(a, b)"
						   " WHERE a.ctid OPERATOR(pg_catalog.=) d.a AND b.ctid OPERATOR(pg_catalog.=) d.b",
						   pair->live_name, es_pair_columns(pair, ES_UPDATED, "b."), pair->shadow_name),
		  1, 2);
	apply(change, psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s b"
						   " WHERE b.ctid OPERATOR(pg_catalog.=) ANY ($1)",
						   pair->live_name, es_pair_columns(pair, ES_INSERTED, ""),
						   es_pair_columns(pair, ES_INSERTED, "b."), pair->shadow_name),
		  3, 1);
	raise_identities(pair);
}

/*
 * The shadow drew the values of identity columns from a sequence of its own, so
 * that of the live table may stand below them.  Never set back; not undone by a
 * rollback, which leaves a gap as others do.
 */
static void
raise_identities(Pair *pair)
{
	TupleDesc	desc = RelationGetDescr(pair->live);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = quote_identifier(NameStr(att->attname));

		if (att->attisdropped || att->attidentity == '\0')
			continue;
		es_pair_execute(psprintf("SELECT pg_catalog.setval(s.seqrelid::pg_catalog.regclass, s.value)"
								 " FROM (SELECT q.*, CASE WHEN q.seqincrement OPERATOR(pg_catalog.>) 0"
								 " THEN (SELECT pg_catalog.max(a.%s) FROM %s a)"
								 " ELSE (SELECT pg_catalog.min(a.%s) FROM %s a) END AS value,"
								 " pg_catalog.pg_sequence_last_value(q.seqrelid) AS last FROM pg_catalog.pg_sequence q"
								 " WHERE q.seqrelid OPERATOR(pg_catalog.=)"
								 " pg_catalog.pg_get_serial_sequence(%s, %s)::pg_catalog.regclass) s"
								 " WHERE s.value OPERATOR(pg_catalog.>=) s.seqmin AND s.value OPERATOR(pg_catalog.<=) s.seqmax"
								 " AND (s.last IS NULL OR CASE WHEN s.seqincrement OPERATOR(pg_catalog.>) 0"
								 " THEN s.value OPERATOR(pg_catalog.>) s.last ELSE s.value OPERATOR(pg_catalog.<) s.last END)",
								 name, pair->live_name, name, pair->live_name,
								 quote_literal_cstr(pair->live_name), quote_literal_cstr(NameStr(att->attname))),
						0, NULL, NULL);
	}
}

/* Runs a command on the places from this one on, if there are any. */
static void
apply(Change *change, const char *sql, int first, int count)
{
	Oid			types[] = {TIDARRAYOID, TIDARRAYOID};
	ErrorContextCallback callback;

	if (change->nulls[first])
		return;
	callback.callback = replace_error_context;
	callback.arg = &change->pair;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	es_pair_execute(sql, count, types, &change->places[first]);
	error_context_stack = callback.previous;
}

static void
replace_error_context(void *arg)
{
	Pair	   *pair = arg;

	errcontext("while the contents of %s were replaced by those of its shadow", pair->live_name);
	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		errhint("A constraint that is DEFERRABLE INITIALLY DEFERRED is checked when all rows are in place.");
}
