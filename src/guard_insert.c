/*
 * guard_insert.c
 *	  The insert guard: makes every INSERT and COPY into an event table an
 *	  append, by the same steps, under the same locks.
 *
 * A BEFORE ROW trigger, the last one, so that what it checks is what is
 * stored.  It does not fire for rows that a restore or a replication worker
 * brings: those have their versions and positions already.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "append_steps.h"
#include "arguments.h"
#include "commands/trigger.h"
#include "event_id.h"
#include "fmgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "xact_state.h"

PG_FUNCTION_INFO_V1(event_store_guard_insert);

/* What the guard sets: position, version, event_id and recorded_at. */
typedef struct Settled
{
	int			n;
	int			columns[4];
	Datum		values[4];
	bool		nulls[4];
} Settled;

static Datum
get_column(TriggerData *trigger, EventTable *table, EventColumn column, bool *isnull)
{
	return heap_getattr(trigger->tg_trigtuple, table->attnum[column],
						RelationGetDescr(trigger->tg_relation), isnull);
}

static void
set_column(Settled *settled, EventTable *table, EventColumn column, Datum value)
{
	settled->columns[settled->n] = table->attnum[column];
	settled->values[settled->n] = value;
	settled->nulls[settled->n++] = false;
}

static void
check_values(TriggerData *trigger, EventTable *table)
{
	bool		isnull;
	Datum		value;
	Size		bytes;

	value = get_column(trigger, table, ES_POSITION, &isnull);
	if (!isnull)
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("position must not be given: " INT64_FORMAT, DatumGetInt64(value)),
				 errdetail("The positions of event table \"%s\" are drawn when events are appended.",
						   RelationGetRelationName(table->rel)),
				 errhint("To restore data into an event table that is there already, as with pg_restore --data-only, run the restore with session_replication_role = replica, for example in PGOPTIONS."),
				 errtablecol(table->rel, table->attnum[ES_POSITION])));
	value = get_column(trigger, table, ES_TYPE, &isnull);
	es_check_type(isnull ? NULL : DatumGetTextPP(value));
	value = get_column(trigger, table, ES_DATA, &isnull);
	bytes = isnull ? 0 : toast_raw_datum_size(value);
	value = get_column(trigger, table, ES_METADATA, &isnull);
	es_check_size(bytes + (isnull ? 0 : toast_raw_datum_size(value)));
	value = get_column(trigger, table, ES_SCHEMA_VERSION, &isnull);
	if (!isnull)
		es_check_schema_version(DatumGetInt32(value));
}

/*
 * The version of the new event.  A given one must be the next; but where the
 * event id is stored already, the row is let through as it is, for the unique
 * index to refuse, so that ON CONFLICT DO NOTHING can be used to repeat an
 * import.
 */
static int64
next_version(TriggerData *trigger, EventTable *table, text *stream, uint32 hash)
{
	StreamAppend append = {.stream = stream,.check_version = true};
	bool		isnull;
	Datum		version = get_column(trigger, table, ES_VERSION, &isnull);
	Datum		event_id;

	if (!isnull && DatumGetInt64(version) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("version must be at least 1, not " INT64_FORMAT, DatumGetInt64(version))));
	append.version = es_stream_version(table, stream, hash);
	if (isnull || DatumGetInt64(version) == append.version + 1)
		return append.version + 1;
	append.expected_version = DatumGetInt64(version) - 1;
	event_id = get_column(trigger, table, ES_EVENT_ID, &isnull);
	if (!isnull && es_event_id_exists(table, event_id))
		return DatumGetInt64(version);
	es_check_versions(table, &append, 1);
	pg_unreachable();
}

Datum
event_store_guard_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	EventTable *table;
	Settled		settled = {0};
	bool		isnull;
	Datum		value;
	text	   *stream;
	uint32		hash;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("event_store._guard_insert() must be fired before the insert of each row")));

	/* The privileges have been checked, possibly those of a view's owner. */
	table = es_event_table_open(RelationGetRelid(trigger->tg_relation),
								RowExclusiveLock, ES_FOR_GUARDING);
	value = get_column(trigger, table, ES_STREAM, &isnull);
	stream = isnull ? NULL : DatumGetTextPP(value);
	es_check_stream(stream);
	check_values(trigger, table);

	hash = es_stream_hash(stream);
	if (!es_is_exclusive(table))
		es_lock_stream(table, hash, ExclusiveLock);
	set_column(&settled, table, ES_VERSION,
			   Int64GetDatum(next_version(trigger, table, stream, hash)));
	set_column(&settled, table, ES_POSITION,
			   Int64GetDatum(es_draw_position(table, es_enter_flight(table))));
	get_column(trigger, table, ES_EVENT_ID, &isnull);
	if (isnull)
		set_column(&settled, table, ES_EVENT_ID, UUIDPGetDatum(es_new_event_id()));
	set_column(&settled, table, ES_RECORDED_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	es_force_sync_commit();
	es_event_table_close(table);

	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_trigtuple,
													 RelationGetDescr(trigger->tg_relation),
													 settled.n, settled.columns,
													 settled.values, settled.nulls));
}
