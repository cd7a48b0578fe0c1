/*
 * shadow.c
 *	  Shadows of the tables of a read model: which tables can have one, making
 *	  and dropping them, and whether the live ones have been written meanwhile.
 *
 * A handler writes its tables by unqualified names.  So with tables of the same
 * names in front of its search_path it writes these instead, and what is live
 * stays as it is.  Such a shadow has the columns, defaults, constraints and
 * indexes of the live table, but no triggers, foreign keys, privileges or
 * policies.  It is never unlogged, even if the live table is: checkpoints that
 * outlive a crash would speak of rows that do not.
 *
 * A handler that goes past the search_path is found out by the counters of the
 * statistics, which count what a transaction writes, rolled back or not.
 *
 * Locks: ACCESS SHARE on the live tables, to the end of the transaction.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "compat.h"
#include "event_table.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "shadow.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

typedef struct WatchedTable
{
	Oid			relid;
	int64		written;
	Oid			file;			/* TRUNCATE brings another one */
} WatchedTable;

struct Watch
{
	int			nest_level;
	int			count;
	WatchedTable tables[FLEXIBLE_ARRAY_MEMBER];
};

static void check_table(Oid relid, List *relids, Oid owner);
static const char *table_problem(Relation rel, List *relids, Oid owner);
static const char *foreign_key_problem(Relation rel, List *relids);
static Oid	shadow_schema(const char *schema);
static void run(const char *sql);
static int64 rows_written(Oid table);
static Oid	file_of(Oid relid);

/* The tables as a list of OIDs. */
List *
es_read_model(ArrayType *tables)
{
	List	   *relids = NIL;
	Datum	   *values;
	bool	   *nulls;
	int			count;

	deconstruct_array(tables, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &values, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("tables must not contain nulls")));
		relids = lappend_oid(relids, DatumGetObjectId(values[i]));
	}
	return relids;
}

/*
 * That these tables of that owner can have shadows, and be replaced by them.
 * Anything of it can change later, by DDL; so callers check each time.
 */
void
es_check_read_model(ArrayType *tables, Oid owner)
{
	List	   *relids = es_read_model(tables);
	ListCell   *cell;

	if (relids == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tables must not be empty")));
	foreach(cell, relids)
	{
		Oid			relid = lfirst_oid(cell);

		check_table(relid, relids, owner);
		for (int i = 0; i < foreach_current_index(cell); i++)
		{
			Oid			other = list_nth_oid(relids, i);

			if (other == relid)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("table %s is listed twice", get_rel_name(relid))));
			if (strcmp(get_rel_name(other), get_rel_name(relid)) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("two tables of a read model have the same name, \"%s\"", get_rel_name(relid)),
						 errdetail("They are in schemas \"%s\" and \"%s\".",
								   get_namespace_name(get_rel_namespace(other)),
								   get_namespace_name(get_rel_namespace(relid))),
						 errhint("A rebuild makes tables of these names in one schema.")));
		}
	}
}

static void
check_table(Oid relid, List *relids, Oid owner)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	const char *problem;

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	problem = table_problem(rel, relids, owner);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s cannot be part of a read model", es_qualified_name(rel)),
				 errdetail_internal("%s", problem),
				 errtable(rel)));
	if (!has_privs_of_role(owner, rel->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table %s is not owned by role \"%s\"", es_qualified_name(rel),
						GetUserNameFromId(owner, false)),
				 errdetail("Its owner is \"%s\".", GetUserNameFromId(rel->rd_rel->relowner, false)),
				 errhint("Who owns a projection must own the tables that it maintains."),
				 errtable(rel)));
	if (check_enable_rls(relid, owner, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security applies to table %s for role \"%s\"", es_qualified_name(rel),
						GetUserNameFromId(owner, false)),
				 errdetail("Rows that it hides could be neither compared nor replaced."),
				 errhint("ALTER TABLE ... NO FORCE ROW LEVEL SECURITY exempts the owner."),
				 errtable(rel)));
	relation_close(rel, NoLock);
}

static const char *
table_problem(Relation rel, List *relids, Oid owner)
{
	const char *schema = get_namespace_name(RelationGetNamespace(rel));
	EventTable	description;

	if (rel->rd_rel->relkind != RELKIND_RELATION)
		return "It is not an ordinary table.";
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		return "It is a temporary table.";
	if (IsReservedName(schema) || strcmp(schema, "information_schema") == 0)
		return "It belongs to the system.";
	if (strcmp(schema, "event_store") == 0)
		return "It belongs to the extension event_store.";
	es_describe_table(rel, 0, &description);
	if (description.is_event_table)
		return "It is an event table.";
	if (description.is_append_only)
		return "It is an append-only table.";
	if (rel->rd_rel->relispartition)
		return "It is a partition.";
	if (has_superclass(RelationGetRelid(rel)))
		return "It inherits from another table.";
	if (rel->rd_rel->relhassubclass &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		return "Another table inherits from it.";
	if (rel->rd_rules != NULL)
		return "It has a rule.";
	return foreign_key_problem(rel, relids);
}

/*
 * Shadows have no foreign keys, so no cascades either: what these do to the live
 * tables would be missing.  And to replace a row that others refer to takes an
 * UPDATE, so a key.
 */
static const char *
foreign_key_problem(Relation rel, List *relids)
{
	bool		has_key = OidIsValid(es_primary_key_index(rel));

	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK)
			continue;
		if (!has_key)
			return "A foreign key refers to it, and it has no primary key.";
		switch (trigger->tgfoid)
		{
			case F_RI_FKEY_NOACTION_DEL:
			case F_RI_FKEY_NOACTION_UPD:
			case F_RI_FKEY_RESTRICT_DEL:
			case F_RI_FKEY_RESTRICT_UPD:
				break;
			default:
				if (list_member_oid(relids, trigger->tgconstrrelid))
					return psprintf("The foreign key of \"%s\" that refers to it changes rows by itself (CASCADE, SET NULL or SET DEFAULT), and shadows have no foreign keys.",
									get_rel_name(trigger->tgconstrrelid));
		}
	}
	return NULL;
}

/* Defaults draw from the live table's sequences, but for identity columns. */
void
es_make_shadows(ArrayType *tables, const char *schema)
{
	ListCell   *cell;

	foreach(cell, es_read_model(tables))
	{
		Oid			live = lfirst_oid(cell);
		char	   *name = get_rel_name(live);
		char	   *live_schema = get_namespace_name(get_rel_namespace(live));

		if (OidIsValid(get_relname_relid(name, shadow_schema(schema))))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 schema ? errmsg("relation \"%s\" already exists in schema \"%s\"", name, schema) :
					 errmsg("a temporary relation \"%s\" already exists", name),
					 errdetail("It is where the shadow of %s has to be.",
							   quote_qualified_identifier(live_schema, name))));
		run(psprintf("CREATE %s TABLE %s (LIKE %s INCLUDING ALL)", schema ? "" : "TEMPORARY",
					 quote_qualified_identifier(schema ? schema : "pg_temp", name),
					 quote_qualified_identifier(live_schema, name)));
	}
}

/* Those that there are, by one command. */
void
es_drop_shadows(ArrayType *tables, const char *schema)
{
	StringInfoData sql;
	ListCell   *cell;

	initStringInfo(&sql);
	foreach(cell, es_read_model(tables))
	{
		Oid			shadow = es_shadow_of(lfirst_oid(cell), schema);

		if (OidIsValid(shadow))
			appendStringInfo(&sql, "%s%s", sql.len > 0 ? ", " : "DROP TABLE ",
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(shadow)),
														get_rel_name(shadow)));
	}
	if (sql.len > 0)
		run(sql.data);
}

/* InvalidOid if there is none.  The live table is never its own. */
Oid
es_shadow_of(Oid live, const char *schema)
{
	char	   *name = get_rel_name(live);
	Oid			shadow = name ? get_relname_relid(name, shadow_schema(schema)) : InvalidOid;

	if (shadow == live || get_rel_relkind(shadow) != RELKIND_RELATION)
		return InvalidOid;
	return shadow;
}

static Oid
shadow_schema(const char *schema)
{
	return schema ? get_namespace_oid(schema, true) : LookupExplicitNamespace("pg_temp", true);
}

static void
run(const char *sql)
{
	int			code;

	SPI_connect();
	code = SPI_execute(sql, false, 0);
	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(code));
	SPI_finish();
}

/*
 * Inserted, updated and deleted by this transaction, also where rolled back; and
 * by earlier ones of this backend that have not been reported yet.  So only what
 * it has grown by means something.
 */
static int64
rows_written(Oid table)
{
	Datum		relid = ObjectIdGetDatum(table);

	return DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_inserted, relid)) +
		DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_updated, relid)) +
		DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_deleted, relid));
}

/*
 * Within a transaction.  Turns track_counts on, as a superuser would, in a GUC
 * nest level that es_end_watch() ends, or an abort: levels that are begun
 * meanwhile have to be ended before.
 */
Watch *
es_begin_watch(ArrayType *tables)
{
	List	   *relids = es_read_model(tables);
	Watch	   *watch = palloc(offsetof(Watch, tables) + sizeof(WatchedTable) * list_length(relids));

	watch->nest_level = NewGUCNestLevel();
	(void) set_config_option("track_counts", "on", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	watch->count = list_length(relids);
	for (int i = 0; i < watch->count; i++)
	{
		watch->tables[i].relid = list_nth_oid(relids, i);
		watch->tables[i].written = rows_written(watch->tables[i].relid);
		watch->tables[i].file = file_of(watch->tables[i].relid);
	}
	return watch;
}

/* The first table that has been written, truncated or dropped; InvalidOid if none. */
Oid
es_end_watch(Watch *watch)
{
	Oid			written = InvalidOid;

	for (int i = 0; i < watch->count && !OidIsValid(written); i++)
	{
		WatchedTable *table = &watch->tables[i];

		if (rows_written(table->relid) != table->written || file_of(table->relid) != table->file)
			written = table->relid;
	}
	AtEOXact_GUC(true, watch->nest_level);
	return written;
}

static Oid
file_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			file = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		file = ((Form_pg_class) GETSTRUCT(tuple))->relfilenode;
		ReleaseSysCache(tuple);
	}
	return file;
}
