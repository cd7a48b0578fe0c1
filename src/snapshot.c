/*
 * snapshot.c
 *	  Saved states of streams: save_snapshot(), load_snapshot().
 *
 * They live in event_store.snapshots, which only these functions reach: they
 * check the caller's rights on the event table, and then act as the owner of
 * that table of ours, for the one statement.
 */
#include "postgres.h"

#include "arguments.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "event_table.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "read.h"
#include "snapshot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(event_store_save_snapshot);
PG_FUNCTION_INFO_V1(event_store_load_snapshot);

/* The state to return to after acting as another user. */
typedef struct SavedUser
{
	Oid			userid;
	int			context;
} SavedUser;

static Oid	owner_of_snapshots(void);
static void become(Oid userid, SavedUser *saved);

/* The owner of event_store.snapshots; invalid where there is no such table. */
static Oid
owner_of_snapshots(void)
{
	Oid			schema = get_namespace_oid("event_store", true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid("snapshots", schema) : InvalidOid;
	HeapTuple	tuple;
	Oid			owner;

	if (!OidIsValid(relid))
		return InvalidOid;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* An error restores the user by itself, at the abort. */
static void
become(Oid userid, SavedUser *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->context);
	SetUserIdAndSecContext(userid, saved->context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
}

static Received
note_existence(EventTable *table, TupleTableSlot *slot, void *arg)
{
	*(bool *) arg = true;
	return ES_ENOUGH;
}

static text *
arg_aggregate(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		es_null_argument("aggregate");
	return PG_GETARG_TEXT_PP(arg);
}

Datum
event_store_save_snapshot(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	EventQuery	query;
	bool		exists = false;
	int64		version;
	SavedUser	saved;
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID, INT4OID, INT8OID, JSONBOID};
	Datum		values[6];

	if (!es_is_table_owner(table->relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(table->rel));
	es_query_init(&query, table, GetActiveSnapshot());
	query.stream = es_arg_stream(fcinfo, 1);
	if (PG_ARGISNULL(2))
		es_null_argument("version");
	query.low = query.high = version = PG_GETARG_INT64(2);
	if (PG_ARGISNULL(3))
		es_null_argument("state");
	if (PG_ARGISNULL(5))
		es_null_argument("schema_version");
	es_read_events(&query, note_existence, &exists);
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no version " INT64_FORMAT,
						text_to_cstring(query.stream), version),
				 errhint("A snapshot is the state after an event that exists."),
				 errtable(table->rel)));

	values[0] = ObjectIdGetDatum(table->relid);
	values[1] = PointerGetDatum(query.stream);
	values[2] = PointerGetDatum(arg_aggregate(fcinfo, 4));
	values[3] = PG_GETARG_DATUM(5);
	values[4] = Int64GetDatum(version);
	values[5] = PG_GETARG_DATUM(3);
	become(owner_of_snapshots(), &saved);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO event_store.snapshots AS s"
							  " (event_table, stream, aggregate, schema_version, version, state)"
							  " VALUES ($1, $2, $3, $4, $5, $6)"
							  " ON CONFLICT (event_table, stream, aggregate, schema_version, version)"
							  " DO UPDATE SET state = EXCLUDED.state, saved_at = EXCLUDED.saved_at",
							  6, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not save a snapshot");
	SPI_finish();
	SetUserIdAndSecContext(saved.userid, saved.context);
	es_event_table_close(table);
	PG_RETURN_VOID();
}

Datum
event_store_load_snapshot(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_READING);
	SavedUser	saved;
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID, INT4OID, INT8OID};
	Datum		values[5];

	if (PG_ARGISNULL(4))
		es_null_argument("schema_version");
	values[0] = ObjectIdGetDatum(table->relid);
	values[1] = PointerGetDatum(es_arg_stream(fcinfo, 1));
	values[2] = PointerGetDatum(arg_aggregate(fcinfo, 2));
	values[3] = PG_GETARG_DATUM(4);
	values[4] = Int64GetDatum(es_arg_int64(fcinfo, 3, PG_INT64_MAX));
	InitMaterializedSRF(fcinfo, 0);

	/* The state tells of events that the policies may hide. */
	if (!es_row_security_applies(table))
	{
		become(owner_of_snapshots(), &saved);
		SPI_connect();
		if (SPI_execute_with_args("SELECT s.version, s.state, s.saved_at FROM event_store.snapshots s"
								  " WHERE s.event_table OPERATOR(pg_catalog.=) $1 AND s.stream OPERATOR(pg_catalog.=) $2"
								  " AND s.aggregate OPERATOR(pg_catalog.=) $3 AND s.schema_version OPERATOR(pg_catalog.=) $4"
								  " AND s.version OPERATOR(pg_catalog.<=) $5"
								  " ORDER BY s.version DESC LIMIT 1",
								  5, types, values, NULL, true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not load a snapshot");
		SetUserIdAndSecContext(saved.userid, saved.context);
		if (SPI_processed > 0)
			tuplestore_puttuple(result->setResult, SPI_tuptable->vals[0]);
		SPI_finish();
	}
	es_event_table_close(table);
	return (Datum) 0;
}

/* An event table is gone, and with it its snapshots. */
void
es_forget_snapshots(Oid event_table)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(event_table)};
	Oid			owner = owner_of_snapshots();
	SavedUser	saved;

	if (!OidIsValid(owner))
		return;
	become(owner, &saved);
	if (SPI_execute_with_args("DELETE FROM event_store.snapshots s"
							  " WHERE s.event_table OPERATOR(pg_catalog.=) $1",
							  1, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete snapshots");
	SetUserIdAndSecContext(saved.userid, saved.context);
}
