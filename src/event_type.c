/*
 * event_type.c
 *	  What the owner of an event table says about its events: register_event_type(),
 *	  register_upcaster(), and their opposites.
 *
 * Rows of tables of ours, written past the executor, as those of a catalog, once
 * the ownership of the event table has been checked.  ShareUpdateExclusiveLock on
 * the event table makes those who write about it take turns; appends and reads
 * go on.
 */
#include "postgres.h"

#include <limits.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "commands/trigger.h"
#include "compat.h"
#include "event_table.h"
#include "event_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "upcast.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(event_store_register_event_type);
PG_FUNCTION_INFO_V1(event_store_unregister_event_type);
PG_FUNCTION_INFO_V1(event_store_register_upcaster);
PG_FUNCTION_INFO_V1(event_store_unregister_upcaster);
PG_FUNCTION_INFO_V1(event_store_note_upcaster);

/* The columns of event_store.registered_event_types. */
enum
{
	TYPE_EVENT_TABLE = 1,
	TYPE_NAME,
	TYPE_DESCRIPTION,
	TYPE_OWNER_TEAM,
	TYPE_EXAMPLE
};

#define NUM_TYPE_COLUMNS	TYPE_EXAMPLE
#define EVENT_TYPES			"registered_event_types"

/* Both tables' keys begin with these, and at most an integer follows. */
#define MAX_KEYS	3

static EventTable *open_owned(FunctionCallInfo fcinfo, const char *command);
static text *arg_type(FunctionCallInfo fcinfo, int n);
static int32 arg_from_version(FunctionCallInfo fcinfo, int n);
static char *upcaster_signature(Oid function);
static void upcaster_range(Oid event_table, Datum type, int32 *first, int32 *last);
static void put_row(const char *table, int nkeys, Datum *values, bool *nulls);
static int	delete_rows(const char *table, int nkeys, Datum *keys);
static void invalidate(Oid event_table);

Datum
event_store_register_event_type(PG_FUNCTION_ARGS)
{
	EventTable *table = open_owned(fcinfo, "register_event_type()");
	Datum		values[NUM_TYPE_COLUMNS];
	bool		nulls[NUM_TYPE_COLUMNS];

	arg_type(fcinfo, 1);
	for (int i = 0; i < NUM_TYPE_COLUMNS; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i);
	}
	put_row(EVENT_TYPES, 2, values, nulls);
	es_event_table_close(table);
	PG_RETURN_VOID();
}

Datum
event_store_unregister_event_type(PG_FUNCTION_ARGS)
{
	EventTable *table = open_owned(fcinfo, "unregister_event_type()");
	Datum		keys[] = {PG_GETARG_DATUM(0), PointerGetDatum(arg_type(fcinfo, 1))};
	int			deleted = delete_rows(EVENT_TYPES, 2, keys);

	es_event_table_close(table);
	PG_RETURN_BOOL(deleted > 0);
}

Datum
event_store_register_upcaster(PG_FUNCTION_ARGS)
{
	EventTable *table = open_owned(fcinfo, "register_upcaster()");
	text	   *type = arg_type(fcinfo, 1);
	int32		from_version = arg_from_version(fcinfo, 2);
	Datum		values[ES_NUM_UPCASTER_COLUMNS] = {PG_GETARG_DATUM(0), PointerGetDatum(type), Int32GetDatum(from_version)};
	bool		nulls[ES_NUM_UPCASTER_COLUMNS] = {false};
	int32		first;
	int32		last;

	if (PG_ARGISNULL(3))
		es_null_argument("function");
	values[ES_UPCASTER_FUNCTION - 1] = CStringGetTextDatum(upcaster_signature(PG_GETARG_OID(3)));

	/* The first is one of any version; the others join on, at either end. */
	upcaster_range(table->relid, values[ES_UPCASTER_TYPE - 1], &first, &last);
	if (last > 0 && (from_version < first - 1 || from_version > last + 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an upcaster of type \"%s\" from schema version %d would leave a hole",
						text_to_cstring(type), from_version),
				 errdetail("There are upcasters from schema versions %d to %d.", first, last),
				 errhint("Register those in between first."),
				 errtable(table->rel)));

	invalidate(table->relid);
	put_row(ES_UPCASTERS, 3, values, nulls);
	es_event_table_close(table);
	PG_RETURN_VOID();
}

Datum
event_store_unregister_upcaster(PG_FUNCTION_ARGS)
{
	EventTable *table = open_owned(fcinfo, "unregister_upcaster()");
	text	   *type = arg_type(fcinfo, 1);
	int32		from_version = arg_from_version(fcinfo, 2);
	Datum		keys[] = {PG_GETARG_DATUM(0), PointerGetDatum(type), Int32GetDatum(from_version)};
	int			deleted;
	int32		first;
	int32		last;

	upcaster_range(table->relid, keys[1], &first, &last);
	if (from_version > first && from_version < last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("without the upcaster of type \"%s\" from schema version %d there would be a hole",
						text_to_cstring(type), from_version),
				 errdetail("There are upcasters from schema versions %d to %d.", first, last),
				 errhint("Only the first and the last can be unregistered; register_upcaster() can put another function in place of any."),
				 errtable(table->rel)));

	invalidate(table->relid);
	deleted = delete_rows(ES_UPCASTERS, 3, keys);
	es_event_table_close(table);
	PG_RETURN_BOOL(deleted > 0);
}

/* Rows that come and go by SQL, as in a restore. */
Datum
event_store_note_upcaster(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != es_own_table(ES_UPCASTERS, true))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function must be called as an AFTER ROW trigger on event_store.%s", ES_UPCASTERS)));
	for (int i = 0; i < 2; i++)
	{
		HeapTuple	tuple = i == 0 ? trigger->tg_trigtuple : trigger->tg_newtuple;
		bool		isnull;

		if (i == 0 || TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
			invalidate(DatumGetObjectId(heap_getattr(tuple, ES_UPCASTER_EVENT_TABLE,
													 RelationGetDescr(trigger->tg_relation), &isnull)));
	}
	return PointerGetDatum(NULL);
}

/* An event table is gone, and with it what was said about its events. */
void
es_forget_event_types(Oid event_table)
{
	Datum		keys[] = {ObjectIdGetDatum(event_table)};

	delete_rows(EVENT_TYPES, 1, keys);
	delete_rows(ES_UPCASTERS, 1, keys);
}

/* Opens an event table that the current user owns, to write about it. */
static EventTable *
open_owned(FunctionCallInfo fcinfo, const char *command)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_LOOKING);

	/* Ownership first: others may have to wait for the lock. */
	if (!es_is_table_owner(table->relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(table->rel));
	PreventCommandIfReadOnly(command);
	LockRelationOid(table->relid, ShareUpdateExclusiveLock);
	return table;
}

static text *
arg_type(FunctionCallInfo fcinfo, int n)
{
	text	   *type = PG_ARGISNULL(n) ? NULL : PG_GETARG_TEXT_PP(n);

	es_check_type(type);
	return type;
}

static int32
arg_from_version(FunctionCallInfo fcinfo, int n)
{
	int32		from_version;

	if (PG_ARGISNULL(n))
		es_null_argument("from_version");
	from_version = PG_GETARG_INT32(n);
	if (from_version < 1 || from_version == INT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from_version must be from 1 to %d, not %d", INT_MAX - 1, from_version)));
	return from_version;
}

/* The function's name, as upcast.c finds it again; after a restore, too. */
static char *
upcaster_signature(Oid function)
{
	char	   *problem = es_upcaster_problem(function);
	char	   *name = get_func_name(function);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s cannot be an upcaster: it %s", format_procedure(function), problem),
				 errhint("An upcaster is a function (jsonb) RETURNS jsonb, IMMUTABLE or STABLE: an event looks the same whenever it is read.")));
	if (es_function_aclcheck(function, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, name);
	return psprintf("%s(jsonb)",
					quote_qualified_identifier(get_namespace_name(get_func_namespace(function)), name));
}

/* Scans a table of ours for the rows whose key begins so. */
static SysScanDesc
begin_scan(Relation rel, int nkeys, Datum *values)
{
	static const RegProcedure equals[MAX_KEYS] = {F_OIDEQ, F_TEXTEQ, F_INT4EQ};
	ScanKeyData keys[MAX_KEYS];

	for (int i = 0; i < nkeys; i++)
		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   i == 1 ? C_COLLATION_OID : InvalidOid, equals[i], values[i]);
	return systable_beginscan(rel, es_primary_key_index(rel), true, NULL, nkeys, keys);
}

/* Of the upcasters of a type, the least and the greatest from_version; 0 for none. */
static void
upcaster_range(Oid event_table, Datum type, int32 *first, int32 *last)
{
	Relation	rel = table_open(es_own_table(ES_UPCASTERS, false), AccessShareLock);
	Datum		keys[] = {ObjectIdGetDatum(event_table), type};
	SysScanDesc scan = begin_scan(rel, 2, keys);
	HeapTuple	tuple;

	*first = *last = 0;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int32		version = DatumGetInt32(heap_getattr(tuple, ES_UPCASTER_FROM_VERSION,
														 RelationGetDescr(rel), &isnull));

		*first = *first == 0 ? version : Min(*first, version);
		*last = Max(*last, version);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Writes a row, in place of the one with that key. */
static void
put_row(const char *table, int nkeys, Datum *values, bool *nulls)
{
	Relation	rel = table_open(es_own_table(table, false), RowExclusiveLock);
	SysScanDesc scan = begin_scan(rel, nkeys, values);
	HeapTuple	old = systable_getnext(scan);
	HeapTuple	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);

	if (HeapTupleIsValid(old))
		CatalogTupleUpdate(rel, &old->t_self, tuple);
	else
		CatalogTupleInsert(rel, tuple);
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* How many there were; none if the table itself is gone. */
static int
delete_rows(const char *table, int nkeys, Datum *keys)
{
	Oid			relid = es_own_table(table, true);
	Relation	rel = OidIsValid(relid) ? try_table_open(relid, RowExclusiveLock) : NULL;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			deleted = 0;

	if (rel == NULL)
		return 0;
	scan = begin_scan(rel, nkeys, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CatalogTupleDelete(rel, &tuple->t_self);
		deleted++;
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	if (deleted > 0)
		CommandCounterIncrement();
	return deleted;
}

/*
 * When the command has ended, and has been committed, all backends look at the
 * event table again, and so at its upcasters.
 */
static void
invalidate(Oid event_table)
{
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(event_table)))
		CacheInvalidateRelcacheByRelid(event_table);
}
