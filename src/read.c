/*
 * read.c
 *	  Reading events: by the table's indexes, or, where row-level security
 *	  applies to the caller, by an SQL query that the policies are part of.
 *
 * Both ways apply the same filters here, and hand the rows to the same
 * receivers.
 */
#include "postgres.h"

#include "arguments.h"
#include "catalog/pg_type.h"
#include "category.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "read.h"
#include "scan.h"
#include "upcast.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

/* Rows per fetch where row-level security applies, unless fewer are wanted. */
#define FETCH_COUNT		1000

typedef struct Progress
{
	int64		last;			/* version or position of the last scanned */
	int64		scanned;
	int64		count;
	EventQueryResult result;
} Progress;

static EventQueryResult read_by_index(EventQuery *query, EventReceiver receive, void *arg);
static EventQueryResult read_by_sql(EventQuery *query, EventReceiver receive, void *arg);
static bool take(EventQuery *query, EventTable *table, TupleTableSlot *slot,
				 EventReceiver receive, void *arg, Progress *progress);

/* A query for all events, in the order of their positions. */
void
es_query_init(EventQuery *query, EventTable *table, Snapshot snapshot)
{
	memset(query, 0, sizeof(EventQuery));
	query->table = table;
	query->snapshot = snapshot;
	query->low = PG_INT64_MIN;
	query->high = PG_INT64_MAX;
	query->max_count = PG_INT64_MAX;
	query->max_scanned = PG_INT64_MAX;
}

EventQueryResult
es_read_events(EventQuery *query, EventReceiver receive, void *arg)
{
	EventQueryResult result;

	if (query->max_count == 0)
		return (EventQueryResult) {.complete = false,.last_scanned = Max(query->low, PG_INT64_MIN + 1) - 1};
	query->upcasting = query->upcast ? es_upcast_begin(query->table) : NULL;
	if (es_row_security_applies(query->table))
		result = read_by_sql(query, receive, arg);
	else
		result = read_by_index(query, receive, arg);
	es_upcast_end(query->upcasting);
	return result;
}

/*
 * Chooses the index that restricts most, and takes what it covers out of the
 * filters.
 */
static EventQueryResult
read_by_index(EventQuery *query, EventReceiver receive, void *arg)
{
	EventTable *table = query->table;
	EventQuery	filter = *query;
	ScanKeyData keys[3];
	int			nkeys = 0;
	AttrNumber	order = 2;
	Oid			indexid;
	EventScan  *scan;
	TupleTableSlot *slot;
	Progress	progress = {.result.complete = true};
	ScanDirection direction = query->backward ? BackwardScanDirection : ForwardScanDirection;

	if (query->event_id)
	{
		indexid = table->event_id_index;
		es_key_uuid(&keys[nkeys++], 1, UUIDPGetDatum(query->event_id));
		order = 0;
	}
	else if (query->stream)
	{
		indexid = table->version_index;
		es_key_text(&keys[nkeys++], 1, query->stream);
	}
	else if (query->after_stream)
	{
		indexid = table->version_index;
		es_key_text_above(&keys[nkeys++], 1, query->after_stream);
		if (query->before_stream)
			es_key_text_below(&keys[nkeys++], 1, query->before_stream);
		order = 0;
	}
	else if (query->category && OidIsValid(table->category_index))
	{
		indexid = table->category_index;
		es_key_text(&keys[nkeys++], 1, query->category);
		filter.category = NULL;
	}
	else if (query->correlation_id && OidIsValid(table->correlation_index))
	{
		indexid = table->correlation_index;
		es_key_text(&keys[nkeys++], 1, query->correlation_id);
		filter.correlation_id = NULL;
	}
	else
	{
		indexid = table->position_index;
		order = 1;
	}
	if (order > 0 && query->low > PG_INT64_MIN)
		es_key_int64(&keys[nkeys++], order, BTGreaterEqualStrategyNumber, query->low);
	if (order > 0 && query->high < PG_INT64_MAX)
		es_key_int64(&keys[nkeys++], order, BTLessEqualStrategyNumber, query->high);

	scan = es_scan_begin(table, indexid, query->snapshot, nkeys, keys);
	while ((slot = es_scan_next(scan, direction)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (!take(&filter, table, slot, receive, arg, &progress))
			break;
	}
	es_scan_end(scan);
	return progress.result;
}

/* Hands on a row that the filters let through; whether to go on. */
static bool
take(EventQuery *query, EventTable *table, TupleTableSlot *slot,
	 EventReceiver receive, void *arg, Progress *progress)
{
	Received	received = ES_MORE;

	if (es_matches(query, table, slot))
	{
		received = receive(table, query->upcasting ? es_upcast(query->upcasting, table, slot) : slot, arg);
		progress->count++;
	}
	if (received != ES_FULL)
	{
		progress->last = es_slot_int64(slot, table, query->stream ? ES_VERSION : ES_POSITION);
		progress->scanned++;
	}
	if (received == ES_MORE && progress->count < query->max_count &&
		progress->scanned < query->max_scanned)
		return true;
	progress->result.complete = false;
	progress->result.last_scanned = progress->last;
	return false;
}

/* In the order of their bytes, which is that of COLLATE "C". */
int
es_compare_texts(const text *a, const text *b)
{
	int			la = VARSIZE_ANY_EXHDR(a);
	int			lb = VARSIZE_ANY_EXHDR(b);
	int			order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(la, lb));

	return order != 0 ? order : la - lb;
}

static int
compare_members(const void *a, const void *b)
{
	return es_compare_texts(*(text *const *) a, *(text *const *) b);
}

static bool
is_member(TextSet *set, const text *value)
{
	return bsearch(&value, set->members, set->n, sizeof(text *), compare_members) != NULL;
}

/* Do the filters let it through? */
bool
es_matches(EventQuery *query, EventTable *table, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value;

	if (query->types)
	{
		value = es_slot_datum(slot, table, ES_TYPE, &isnull);
		if (!is_member(query->types, DatumGetTextPP(value)))
			return false;
	}
	if (query->streams || query->category || query->categories || query->partitions > 1)
	{
		text	   *stream = DatumGetTextPP(es_slot_datum(slot, table, ES_STREAM, &isnull));

		if (query->streams && !is_member(query->streams, stream))
			return false;
		if (query->partitions > 1 && es_partition_of(stream, query->partitions) != query->partition)
			return false;
		if (query->category || query->categories)
		{
			text	   *category = es_category(stream);
			bool		match = (!query->category || es_compare_texts(category, query->category) == 0) &&
				(!query->categories || is_member(query->categories, category));

			pfree(category);
			if (!match)
				return false;
		}
	}
	if (query->correlation_id)
	{
		value = es_slot_datum(slot, table, ES_CORRELATION_ID, &isnull);
		if (isnull || es_compare_texts(DatumGetTextPP(value), query->correlation_id) != 0)
			return false;
	}
	if (query->as_of &&
		DatumGetTimestampTz(es_slot_datum(slot, table, ES_RECORDED_AT, &isnull)) > *query->as_of)
		return false;
	return true;
}

/* The SQL query that fetches what an index scan would, in the same order. */
static void
build_sql(EventQuery *query, StringInfo sql, Datum *values, Oid *types, int *nargs)
{
	const char *order = query->stream || query->after_stream ? "version" : "position";
	const char *direction = query->backward ? "DESC" : "ASC";

	appendStringInfoString(sql, "SELECT ");
	for (int i = 0; i < ES_NUM_COLUMNS; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", es_columns[i].name);
	values[0] = Int64GetDatum(query->low);
	values[1] = Int64GetDatum(query->high);
	types[0] = types[1] = INT8OID;
	*nargs = 2;
	appendStringInfo(sql, " FROM ONLY %s WHERE %s OPERATOR(pg_catalog.>=) $1 AND %s OPERATOR(pg_catalog.<=) $2",
					 es_qualified_name(query->table->rel), order, order);
	if (query->event_id)
	{
		values[*nargs] = UUIDPGetDatum(query->event_id);
		types[(*nargs)++] = UUIDOID;
		appendStringInfo(sql, " AND event_id OPERATOR(pg_catalog.=) $%d", *nargs);
	}
	if (query->stream)
	{
		values[*nargs] = PointerGetDatum(query->stream);
		types[(*nargs)++] = TEXTOID;
		appendStringInfo(sql, " AND stream OPERATOR(pg_catalog.=) $%d", *nargs);
	}
	if (query->after_stream)
	{
		values[*nargs] = PointerGetDatum(query->after_stream);
		types[(*nargs)++] = TEXTOID;
		appendStringInfo(sql, " AND stream OPERATOR(pg_catalog.>) $%d", *nargs);
	}
	if (query->before_stream)
	{
		values[*nargs] = PointerGetDatum(query->before_stream);
		types[(*nargs)++] = TEXTOID;
		appendStringInfo(sql, " AND stream OPERATOR(pg_catalog.<) $%d", *nargs);
	}
	if (query->correlation_id)
	{
		values[*nargs] = PointerGetDatum(query->correlation_id);
		types[(*nargs)++] = TEXTOID;
		appendStringInfo(sql, " AND correlation_id OPERATOR(pg_catalog.=) $%d", *nargs);
	}
	appendStringInfoString(sql, " ORDER BY ");
	if (query->after_stream)
		appendStringInfo(sql, "stream %s, ", direction);
	appendStringInfo(sql, "%s %s", order, direction);
}

static EventQueryResult
read_by_sql(EventQuery *query, EventReceiver receive, void *arg)
{
	StringInfoData sql;
	Datum		values[7];
	Oid			types[7];
	int			nargs;
	Portal		portal;
	EventTable	shape = *query->table;
	TupleTableSlot *slot = NULL;
	bool		more = true;
	uint64		count = Min(FETCH_COUNT, query->max_count);
	Progress	progress = {.result.complete = true};

	/* The query returns our columns in their order and no others. */
	for (int i = 0; i < ES_NUM_COLUMNS; i++)
		shape.attnum[i] = i + 1;
	shape.plain = true;

	PushActiveSnapshot(query->snapshot);
	SPI_connect();
	initStringInfo(&sql);
	build_sql(query, &sql, values, types, &nargs);
	portal = SPI_cursor_open_with_args(NULL, sql.data, nargs, types, values,
									   NULL, true, CURSOR_OPT_NO_SCROLL | CURSOR_OPT_FAST_PLAN);
	do
	{
		SPI_cursor_fetch(portal, true, count);
		if (slot == NULL)
			slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(SPI_tuptable->tupdesc), &TTSOpsHeapTuple);
		for (uint64 i = 0; more && i < SPI_processed; i++)
		{
			ExecForceStoreHeapTuple(SPI_tuptable->vals[i], slot, false);
			more = take(query, &shape, slot, receive, arg, &progress);
		}
		ExecClearTuple(slot);
		SPI_freetuptable(SPI_tuptable);
	} while (more && SPI_processed == count);
	ExecDropSingleTupleTableSlot(slot);
	SPI_cursor_close(portal);
	SPI_finish();
	PopActiveSnapshot();
	return progress.result;
}

static Received
put_in_tuplestore(EventTable *table, TupleTableSlot *slot, void *arg)
{
	ReturnSetInfo *result = arg;

	if (table->plain)
		tuplestore_puttupleslot(result->setResult, slot);
	else
	{
		Datum		values[ES_NUM_COLUMNS];
		bool		nulls[ES_NUM_COLUMNS];

		for (int i = 0; i < ES_NUM_COLUMNS; i++)
			values[i] = es_slot_datum(slot, table, i, &nulls[i]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return ES_MORE;
}

/* Returns the events from a function that RETURNS SETOF event_store.event. */
void
es_return_events(FunctionCallInfo fcinfo, EventQuery *query)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != ES_NUM_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the type event_store.event has been altered")));
	es_read_events(query, put_in_tuplestore, result);
}

/* A filter; NULL where the argument is. */
TextSet *
es_arg_text_set(FunctionCallInfo fcinfo, int arg, const char *name)
{
	return PG_ARGISNULL(arg) ? NULL : es_text_set(PG_GETARG_ARRAYTYPE_P(arg), name);
}

/* Points into the array. */
TextSet *
es_text_set(ArrayType *array, const char *name)
{
	TextSet    *set = palloc(sizeof(TextSet));
	Datum	   *values;
	bool	   *nulls;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &set->n);
	set->members = palloc(sizeof(text *) * Max(set->n, 1));
	for (int i = 0; i < set->n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s[%d] must not be null", name, i + 1)));
		set->members[i] = DatumGetTextPP(values[i]);
	}
	qsort(set->members, set->n, sizeof(text *), compare_members);
	return set;
}

ArrayType *
es_text_set_array(TextSet *set)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(set->n, 1));

	for (int i = 0; i < set->n; i++)
		values[i] = PointerGetDatum(set->members[i]);
	return construct_array(values, set->n, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * Which of so many partitions a stream belongs to, from 1 on.  By a checksum that is the
 * same on all machines and for ever, as a dump takes checkpoints along.
 */
int
es_partition_of(const text *stream, int partitions)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, VARDATA_ANY(stream), VARSIZE_ANY_EXHDR(stream));
	FIN_CRC32C(crc);
	/* Checksums of similar names are similar. */
	return murmurhash32(crc) % partitions + 1;
}

int64
es_arg_max_count(FunctionCallInfo fcinfo, int arg, int64 otherwise)
{
	int64		max_count = es_arg_int64(fcinfo, arg, otherwise);

	es_check_not_negative("max_count", max_count);
	return max_count;
}
