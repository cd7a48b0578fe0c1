/*
 * shadow_diff.c
 *	  What differs between a table and its shadow; digests of tables.
 *
 * Rows are compared by their stored values, as the operator *= does, which every
 * type has: 1.0 is not 1.00, and json needs no equality.  With a primary key
 * rows are matched by it, else as a multiset.  A difference is a pair of places,
 * (a, b): that of the live row and that of the shadow's, one of them or both.
 *
 * Every function and operator is named with its schema: the search_path is the
 * caller's, or that of a handler.
 *
 * Locks: ACCESS SHARE on both, or what the caller says; to the end of the
 * transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_index.h"
#include "compat.h"
#include "event_table.h"
#include "executor/spi.h"
#include "shadow.h"
#include "shadow_diff.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

static char *first_difference(Pair *pair, const char *const labels[2]);
static int	compare_names(const ListCell *a, const ListCell *b);
static void check_columns(Relation live, Relation shadow);
static void find_key(Pair *pair);
static char *key_operator(Relation index, int n, Form_pg_attribute att);

/*
 * The difference is a JSON text about the first row, by the primary key or the
 * row's text: {"only_in", "row"}, or {"key", label, other label}.
 */
bool
es_tables_differ(Oid live, Oid shadow, const char *const labels[2], char **difference,
				 uint64 *rows_live, uint64 *rows_shadow)
{
	MemoryContext caller = CurrentMemoryContext;
	Pair		pair;
	bool		isnull;
	char	   *first;

	es_open_pair(&pair, live, shadow, AccessShareLock, AccessShareLock);
	SPI_connect();
	/* All by one snapshot. */
	es_pair_execute(psprintf("SELECT (SELECT pg_catalog.count(*) FROM %s),"
							 " (SELECT pg_catalog.count(*) FROM %s), (%s)",
							 pair.live_name, pair.shadow_name, first_difference(&pair, labels)),
					0, NULL, NULL);
	*rows_live = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*rows_shadow = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	first = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
	*difference = first ? MemoryContextStrdup(caller, first) : NULL;
	SPI_finish();
	es_close_pair(&pair);
	return *difference != NULL;
}

static char *
first_difference(Pair *pair, const char *const labels[2])
{
	char	   *live = quote_literal_cstr(labels[0]);
	char	   *shadow = quote_literal_cstr(labels[1]);
	StringInfoData key;
	StringInfoData order;
	ListCell   *cell;

	initStringInfo(&key);
	initStringInfo(&order);
	foreach(cell, pair->key)
	{
		char	   *name = NameStr(TupleDescAttr(RelationGetDescr(pair->live), lfirst_int(cell) - 1)->attname);

		appendStringInfo(&key, "%s%s::pg_catalog.text, a.%s", key.len > 0 ? ", " : "",
						 quote_literal_cstr(name), quote_identifier(name));
		appendStringInfo(&order, "%sCOALESCE(a.%s, b.%s)", order.len > 0 ? ", " : "",
						 quote_identifier(name), quote_identifier(name));
	}
	if (pair->key == NIL)
		appendStringInfo(&order, "CASE WHEN d.b IS NULL THEN ROW(%s)::pg_catalog.text"
						 " ELSE ROW(%s)::pg_catalog.text END COLLATE pg_catalog.\"C\"",
						 es_pair_columns(pair, ES_COMPARED, "a."), es_pair_columns(pair, ES_COMPARED, "b."));
	return psprintf("SELECT CASE"
					" WHEN d.b IS NULL THEN pg_catalog.json_build_object('only_in', %s::pg_catalog.text,"
					" 'row', pg_catalog.row_to_json(a.*))"
					" WHEN d.a IS NULL THEN pg_catalog.json_build_object('only_in', %s::pg_catalog.text,"
					" 'row', pg_catalog.row_to_json(b.*))"
					" ELSE pg_catalog.json_build_object('key', pg_catalog.json_build_object(%s),"
					" %s::pg_catalog.text, pg_catalog.row_to_json(a.*), %s::pg_catalog.text, pg_catalog.row_to_json(b.*)) END"
					" FROM (%s) d LEFT JOIN %s a ON a.ctid OPERATOR(pg_catalog.=) d.a"
					" LEFT JOIN %s b ON b.ctid OPERATOR(pg_catalog.=) d.b ORDER BY %s LIMIT 1",
					live, shadow, key.data, live, shadow, es_pair_differences(pair),
					pair->live_name, pair->shadow_name, order.data);
}

/*
 * The number of rows, and the sum of their 64-bit hashes: so in no order, and
 * equal rows count as often as they are there.  A row is hashed in its binary
 * format, columns by name: that does not depend on settings, as text does, nor
 * on where columns lie, and tells apart whatever *= does that can be seen.
 * Good within a database: the format has the OIDs of types in it.
 */
char *
es_table_digest(Oid table)
{
	MemoryContext caller = CurrentMemoryContext;
	Relation	rel = relation_open(table, AccessShareLock);
	StringInfoData row;
	List	   *names = NIL;
	ListCell   *cell;
	char	   *digest;

	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
		if (!TupleDescAttr(RelationGetDescr(rel), i)->attisdropped)
			names = lappend(names, NameStr(TupleDescAttr(RelationGetDescr(rel), i)->attname));
	list_sort(names, compare_names);
	initStringInfo(&row);
	foreach(cell, names)
		appendStringInfo(&row, "%sa.%s", row.len > 0 ? ", " : "", quote_identifier(lfirst(cell)));
	SPI_connect();
	es_pair_execute(psprintf("SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum("
							 "pg_catalog.hashtextextended(pg_catalog.encode(pg_catalog.record_send(ROW(%s)), 'hex')"
							 " COLLATE pg_catalog.\"C\", 0))) FROM %s a", row.data, es_qualified_name(rel)),
					0, NULL, NULL);
	digest = MemoryContextStrdup(caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	relation_close(rel, NoLock);
	return digest;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

void
es_open_pair(Pair *pair, Oid live, Oid shadow, LOCKMODE live_lock, LOCKMODE shadow_lock)
{
	memset(pair, 0, sizeof(Pair));
	pair->live = relation_open(live, live_lock);
	pair->shadow = relation_open(shadow, shadow_lock);
	pair->live_name = es_qualified_name(pair->live);
	pair->shadow_name = es_qualified_name(pair->shadow);
	check_columns(pair->live, pair->shadow);
	find_key(pair);
}

void
es_close_pair(Pair *pair)
{
	relation_close(pair->shadow, NoLock);
	relation_close(pair->live, NoLock);
}

/* The same names and types, wherever they are. */
static void
check_columns(Relation live, Relation shadow)
{
	for (int side = 0; side < 2; side++)
	{
		Relation	rel = side == 0 ? live : shadow;
		Relation	other = side == 0 ? shadow : live;

		for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
		{
			Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);
			AttrNumber	attnum;

			if (att->attisdropped)
				continue;
			attnum = get_attnum(RelationGetRelid(other), NameStr(att->attname));
			if (attnum == InvalidAttrNumber ||
				TupleDescAttr(RelationGetDescr(other), attnum - 1)->atttypid != att->atttypid ||
				TupleDescAttr(RelationGetDescr(other), attnum - 1)->atttypmod != att->atttypmod)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("table %s and its shadow have other columns", es_qualified_name(live)),
						 errdetail("Column \"%s\" of %s is missing in %s, or has another type there.",
								   NameStr(att->attname), es_qualified_name(rel), es_qualified_name(other)),
						 errhint("The table has changed since its shadow was made: begin again with a new one."),
						 errtable(live)));
		}
	}
}

/*
 * The primary key, if both have it: then no key is there twice.  Compared by its
 * index's operators.
 */
static void
find_key(Pair *pair)
{
	Oid			live_index = es_primary_key_index(pair->live);
	Oid			shadow_index = es_primary_key_index(pair->shadow);
	Relation	index;
	Relation	other;
	StringInfoData clause;

	if (!OidIsValid(live_index) || !OidIsValid(shadow_index))
		return;
	index = index_open(live_index, AccessShareLock);
	other = index_open(shadow_index, AccessShareLock);
	initStringInfo(&clause);
	if (index->rd_rel->relam == BTREE_AM_OID &&
		index->rd_index->indnkeyatts == other->rd_index->indnkeyatts)
		for (int i = 0; i < index->rd_index->indnkeyatts; i++)
		{
			AttrNumber	attnum = index->rd_index->indkey.values[i];
			Form_pg_attribute att = TupleDescAttr(RelationGetDescr(pair->live), attnum - 1);

			if (get_attnum(RelationGetRelid(pair->shadow), NameStr(att->attname)) !=
				other->rd_index->indkey.values[i])
			{
				pair->key = NIL;
				break;
			}
			pair->key = lappend_int(pair->key, attnum);
			appendStringInfo(&clause, "%s%s", i > 0 ? " AND " : "", key_operator(index, i, att));
		}
	pair->key_clause = clause.data;
	index_close(other, NoLock);
	index_close(index, NoLock);
}

static char *
key_operator(Relation index, int n, Form_pg_attribute att)
{
	Oid			type = index->rd_opcintype[n];
	Oid			operator = get_opfamily_member(index->rd_opfamily[n], type, type, BTEqualStrategyNumber);
	const char *name = quote_identifier(NameStr(att->attname));
	StringInfoData clause;

	if (!OidIsValid(operator))
		elog(ERROR, "operator family %u has no equality of type %u", index->rd_opfamily[n], type);
	initStringInfo(&clause);
	generate_operator_clause(&clause, psprintf("a.%s", name), att->atttypid, operator,
							 psprintf("b.%s", name), att->atttypid);
	return clause.data;
}

/* A list of columns, in the order of live, for this use. */
char *
es_pair_columns(Pair *pair, ColumnUse use, const char *alias)
{
	TupleDesc	desc = RelationGetDescr(pair->live);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = quote_identifier(NameStr(att->attname));

		if (att->attisdropped || (use != ES_COMPARED && att->attgenerated != '\0') ||
			(use == ES_UPDATED && att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS && list_member_int(pair->key, i + 1)))
			continue;
		if (list.len > 0)
			appendStringInfoString(&list, ", ");
		if (use == ES_UPDATED)
			appendStringInfo(&list, "%s = ", name);
		appendStringInfo(&list, "%s%s", alias, name);
	}
	return list.data;
}

/*
 * A query for the pairs (a, b).  Without a key: rows of one image are numbered
 * in each table, and those beyond the number in the other one are left.  Image
 * operators can sort, but not hash, so rows are only told apart by their rank.
 */
char *
es_pair_differences(Pair *pair)
{
	char	   *a = es_pair_columns(pair, ES_COMPARED, "a.");
	char	   *b = es_pair_columns(pair, ES_COMPARED, "b.");

	if (pair->key != NIL)
		return psprintf("SELECT a.ctid AS a, b.ctid AS b FROM %s a FULL JOIN %s b ON %s"
						" WHERE a.ctid IS NULL OR b.ctid IS NULL"
						" OR pg_catalog.record_image_ne(ROW(%s), ROW(%s))",
						pair->live_name, pair->shadow_name, pair->key_clause, a, b);
	return psprintf("SELECT CASE WHEN is_live THEN place END AS a, CASE WHEN NOT is_live THEN place END AS b"
					" FROM (SELECT is_live, place,"
					" pg_catalog.row_number() OVER (PARTITION BY image, is_live) AS number,"
					" pg_catalog.count(*) FILTER (WHERE is_live) OVER (PARTITION BY image) AS live_rows,"
					" pg_catalog.count(*) FILTER (WHERE NOT is_live) OVER (PARTITION BY image) AS shadow_rows"
					" FROM (SELECT is_live, place,"
					" pg_catalog.rank() OVER (ORDER BY contents USING OPERATOR(pg_catalog.*<)) AS image"
					" FROM (SELECT true AS is_live, a.ctid AS place, ROW(%s) AS contents FROM %s a"
					" UNION ALL SELECT false, b.ctid, ROW(%s) FROM %s b) both_tables) ranked) numbered"
					" WHERE number OPERATOR(pg_catalog.>) CASE WHEN is_live THEN shadow_rows ELSE live_rows END",
					a, pair->live_name, b, pair->shadow_name);
}

/* With a snapshot that shows what this transaction has written. */
void
es_pair_execute(const char *sql, int nargs, Oid *types, Datum *values)
{
	int			code = SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0);

	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(code));
}
