/*
 * projection_checkpoint.c
 *	  How far the partitions of projections are: event_store.projection_checkpoints.
 *
 * Whoever runs a partition has it locked, and so is the only one who writes its row,
 * in the transaction that writes what it stands for.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "compat.h"
#include "own_tables.h"
#include "projection_checkpoint.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* At most so long between two attempts. */
#define MAX_RETRY_DELAY		(60 * USECS_PER_SEC)

/* The columns of event_store.projection_checkpoints. */
enum
{
	PROJECTION,
	REBUILD,
	PARTITION,
	POSITION,
	EVENT_ID,
	EVENTS,
	BATCHES,
	ERRORS,
	OWN_APPENDS,
	RATE,
	UPDATED_AT,
	ATTEMPTS,
	FAILED,
	RETRY_AT,
	ERROR_POSITION,
	ERROR_EVENT_ID,
	ERROR_STREAM,
	ERROR_TYPE,
	ERROR_SQLSTATE,
	ERROR_MESSAGE,
	ERROR_CONTEXT,
	ERROR_AT,
	NUM_COLUMNS
};

static ProjectionCheckpoint *read_row(Relation rel, HeapTuple tuple);
static HeapTuple form_row(Relation rel, ProjectionCheckpoint *checkpoint);

/* The rows of a projection, of one kind; of one partition if it is above 0. */
static List *
list_rows(const char *projection, bool rebuild, int partition)
{
	Relation	rel = es_try_open_own_table(ES_CHECKPOINTS, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *rows = NIL;

	if (rel == NULL)
		return NIL;
	scan = es_scan_projection(rel, projection, rebuild ? ES_REBUILD_ROWS : ES_LIVE_ROWS);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		ProjectionCheckpoint *row = read_row(rel, tuple);

		if (partition == 0 || row->partition == partition)
			rows = lappend(rows, row);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return rows;
}

/* NULL if there is none. */
ProjectionCheckpoint *
es_find_checkpoint(const char *projection, bool rebuild, int partition)
{
	List	   *rows = list_rows(projection, rebuild, partition);

	return rows == NIL ? NULL : linitial(rows);
}

/* In the order of the partitions. */
List *
es_list_checkpoints(const char *projection, bool rebuild)
{
	return list_rows(projection, rebuild, 0);
}

static char *
read_text(Datum *values, bool *nulls, int column)
{
	return nulls[column] ? NULL : TextDatumGetCString(values[column]);
}

static ProjectionCheckpoint *
read_row(Relation rel, HeapTuple tuple)
{
	ProjectionCheckpoint *row = palloc0(sizeof(ProjectionCheckpoint));
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS];

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	row->projection = TextDatumGetCString(values[PROJECTION]);
	row->rebuild = DatumGetBool(values[REBUILD]);
	row->partition = DatumGetInt32(values[PARTITION]);
	row->position = DatumGetInt64(values[POSITION]);
	if (!nulls[EVENT_ID])
		row->event_id = *DatumGetUUIDP(values[EVENT_ID]);
	row->events = DatumGetInt64(values[EVENTS]);
	row->batches = DatumGetInt64(values[BATCHES]);
	row->errors = DatumGetInt64(values[ERRORS]);
	row->own_appends = DatumGetInt64(values[OWN_APPENDS]);
	row->rate = DatumGetFloat8(values[RATE]);
	row->updated_at = DatumGetTimestampTz(values[UPDATED_AT]);
	row->attempts = DatumGetInt32(values[ATTEMPTS]);
	row->failed = DatumGetBool(values[FAILED]);
	row->retry_at = nulls[RETRY_AT] ? 0 : DatumGetTimestampTz(values[RETRY_AT]);
	if (!nulls[ERROR_SQLSTATE])
	{
		char	   *sqlstate = TextDatumGetCString(values[ERROR_SQLSTATE]);
		EventError *error = palloc0(sizeof(EventError));

		if (strlen(sqlstate) == 5)
			error->sqlerrcode = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]);
		if (!nulls[ERROR_POSITION])
			error->position = DatumGetInt64(values[ERROR_POSITION]);
		if (!nulls[ERROR_EVENT_ID])
			error->event_id = *DatumGetUUIDP(values[ERROR_EVENT_ID]);
		error->stream = read_text(values, nulls, ERROR_STREAM);
		error->type = read_text(values, nulls, ERROR_TYPE);
		error->message = read_text(values, nulls, ERROR_MESSAGE);
		error->context = read_text(values, nulls, ERROR_CONTEXT);
		row->error = error;
		row->error_at = nulls[ERROR_AT] ? 0 : DatumGetTimestampTz(values[ERROR_AT]);
	}
	return row;
}

static void
form_text(Datum *values, bool *nulls, int column, const char *value)
{
	nulls[column] = value == NULL;
	if (value)
		values[column] = CStringGetTextDatum(value);
}

static HeapTuple
form_row(Relation rel, ProjectionCheckpoint *row)
{
	Datum		values[NUM_COLUMNS];
	bool		nulls[NUM_COLUMNS] = {false};
	EventError *error = row->error;

	values[PROJECTION] = CStringGetTextDatum(row->projection);
	values[REBUILD] = BoolGetDatum(row->rebuild);
	values[PARTITION] = Int32GetDatum(row->partition);
	values[POSITION] = Int64GetDatum(row->position);
	nulls[EVENT_ID] = row->position == 0;
	values[EVENT_ID] = UUIDPGetDatum(&row->event_id);
	values[EVENTS] = Int64GetDatum(row->events);
	values[BATCHES] = Int64GetDatum(row->batches);
	values[ERRORS] = Int64GetDatum(row->errors);
	values[OWN_APPENDS] = Int64GetDatum(row->own_appends);
	values[RATE] = Float8GetDatum(row->rate);
	values[UPDATED_AT] = TimestampTzGetDatum(row->updated_at);
	values[ATTEMPTS] = Int32GetDatum(row->attempts);
	values[FAILED] = BoolGetDatum(row->failed);
	nulls[RETRY_AT] = row->retry_at == 0;
	values[RETRY_AT] = TimestampTzGetDatum(row->retry_at);
	for (int i = ERROR_POSITION; i <= ERROR_AT; i++)
		nulls[i] = error == NULL;
	if (error)
	{
		nulls[ERROR_POSITION] = nulls[ERROR_EVENT_ID] = error->position == 0;
		values[ERROR_POSITION] = Int64GetDatum(error->position);
		values[ERROR_EVENT_ID] = UUIDPGetDatum(&error->event_id);
		form_text(values, nulls, ERROR_STREAM, error->stream);
		form_text(values, nulls, ERROR_TYPE, error->type);
		form_text(values, nulls, ERROR_SQLSTATE, unpack_sql_state(error->sqlerrcode));
		form_text(values, nulls, ERROR_MESSAGE, error->message);
		form_text(values, nulls, ERROR_CONTEXT, error->context);
		values[ERROR_AT] = TimestampTzGetDatum(row->error_at);
	}
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

/* The row is gone if the handler has dropped its own projection. */
void
es_save_checkpoint(ProjectionCheckpoint *checkpoint)
{
	Relation	rel = table_open(es_own_table(ES_CHECKPOINTS, false), RowExclusiveLock);
	SysScanDesc scan = es_scan_projection(rel, checkpoint->projection,
										  checkpoint->rebuild ? ES_REBUILD_ROWS : ES_LIVE_ROWS);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		ProjectionCheckpoint *row = read_row(rel, tuple);

		if (row->partition != checkpoint->partition)
			continue;
		CatalogTupleUpdate(rel, &tuple->t_self, form_row(rel, checkpoint));
		break;
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* One for each partition, all at the same place. */
void
es_insert_checkpoints(Projection *projection, bool rebuild, Checkpoint at)
{
	Relation	rel = table_open(es_own_table(ES_CHECKPOINTS, false), RowExclusiveLock);

	for (int i = 1; i <= projection->partitions; i++)
	{
		ProjectionCheckpoint row = {
			.projection = projection->name,
			.rebuild = rebuild,
			.partition = i,
			.position = at.position,
			.event_id = at.event_id,
			.updated_at = GetCurrentTimestamp()
		};

		CatalogTupleInsert(rel, form_row(rel, &row));
	}
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
es_delete_checkpoints(const char *projection, bool rebuild)
{
	es_delete_projection_rows(ES_CHECKPOINTS, projection, rebuild ? ES_REBUILD_ROWS : ES_LIVE_ROWS);
}

/* Errors that come of what others do at the same time go by: they are tried again for ever. */
bool
es_is_transient(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK;
}

/* One more failed attempt; is there to be another one, and when? */
void
es_note_checkpoint_error(Projection *projection, ProjectionCheckpoint *checkpoint, EventError *error)
{
	bool		same = checkpoint->attempts > 0 && checkpoint->error &&
		checkpoint->error->position == error->position;
	int			attempts = same ? checkpoint->attempts + 1 : 1;
	int64		delay = Min(projection->retry_delay, MAX_RETRY_DELAY) << Min(attempts - 1, 20);

	checkpoint->attempts = attempts;
	checkpoint->errors++;
	checkpoint->error = error;
	checkpoint->error_at = GetCurrentTimestamp();
	checkpoint->failed = attempts >= projection->max_attempts && !es_is_transient(error->sqlerrcode);
	checkpoint->retry_at = checkpoint->failed ? 0 : checkpoint->error_at + Min(delay, MAX_RETRY_DELAY);
}
