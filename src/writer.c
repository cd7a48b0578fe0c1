/*
 * writer.c
 *	  Inserting events: steps 7 and 8 of an append.
 *
 * As COPY does it: rows go to the heap and the indexes directly, many at a
 * time, and all that users have put on the table holds: defaults of their
 * columns, generated columns, NOT NULL, CHECK, foreign keys, statement and row
 * triggers, transition tables.  The insert guard is taken out of the copy of
 * the trigger descriptor, since its work is done already.
 *
 * Rows go one at a time where a BEFORE ROW trigger of a user, or a volatile
 * default, could look at the table or change the row.  Where row-level
 * security applies to the caller, rows go through the executor, and so through
 * the guard too.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "compat.h"
#include "errors.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "executor/spi.h"
#include "index_state.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "scan.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "writer.h"
#include "xact_state.h"

/* As in copyfrom.c. */
#define MAX_BUFFERED_ROWS	1000
#define MAX_BUFFERED_BYTES	65536

struct EventWriter
{
	EventTable *table;
	TableXact  *xact;

	/* the executor's state */
	IndexState *state;
	EState	   *estate;			/* in state */
	ResultRelInfo *result;
	TransitionCaptureState *capture;
	CommandId	cid;
	BulkInsertState bulk;

	/* columns that users have added */
	Bitmapset  *ours;			/* the attribute numbers of the other columns */
	int			ndefaults;
	AttrNumber *default_column;
	ExprState **default_value;

	bool		one_by_one;

	/* rows not yet written */
	int			max_rows;
	int			nrows;
	Size		bytes;
	TupleTableSlot **slots;

	/* where row-level security applies; the others are then NULL */
	SPIPlanPtr	plan;
};

static void open_result(EventWriter *writer);
static void drop_insert_guard(EventWriter *writer);
static void prepare_defaults(EventWriter *writer);
static TupleTableSlot *next_slot(EventWriter *writer);
static void fill_slot(EventWriter *writer, TupleTableSlot *slot, NewEvent *event);
static void fire_before_row(EventWriter *writer, TupleTableSlot *slot, NewEvent *event);
static void check_row(EventWriter *writer, TupleTableSlot *slot);
static void flush(EventWriter *writer);
static void unique_violation(EventWriter *writer, TupleTableSlot *slot);
static void prepare_plan(EventWriter *writer);
static int64 put_by_plan(EventWriter *writer, NewEvent *event);

EventWriter *
es_writer_begin(EventTable *table, int64 nevents)
{
	EventWriter *writer = palloc0(sizeof(EventWriter));

	writer->table = table;
	if (es_row_security_applies(table))
	{
		prepare_plan(writer);
		return writer;
	}

	open_result(writer);
	prepare_defaults(writer);
	if (writer->result->ri_TrigDesc &&
		writer->result->ri_TrigDesc->trig_insert_before_row)
		writer->one_by_one = true;
	writer->max_rows = writer->one_by_one ? 1 : Min(nevents, MAX_BUFFERED_ROWS);
	writer->slots = palloc0(sizeof(TupleTableSlot *) * writer->max_rows);
	if (nevents > MAX_BUFFERED_ROWS)
		writer->bulk = GetBulkInsertState();

	ExecBSInsertTriggers(writer->estate, writer->result);
	writer->xact = es_enter_flight(table);
	return writer;
}

/* Writes an event whose stream, version and id are settled; its position. */
int64
es_writer_put(EventWriter *writer, NewEvent *event)
{
	TupleTableSlot *slot;
	int64		position;

	CHECK_FOR_INTERRUPTS();
	if (writer->plan)
		return put_by_plan(writer, event);

	es_check_size(toast_raw_datum_size(event->values[ES_DATA]) +
				  (event->nulls[ES_METADATA] ? 0 : toast_raw_datum_size(event->values[ES_METADATA])));
	position = es_draw_position(writer->table, writer->xact);
	event->values[ES_POSITION] = Int64GetDatum(position);
	event->values[ES_RECORDED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());

	ResetPerTupleExprContext(writer->estate);
	slot = next_slot(writer);
	fill_slot(writer, slot, event);
	if (writer->result->ri_TrigDesc &&
		writer->result->ri_TrigDesc->trig_insert_before_row)
		fire_before_row(writer, slot, event);
	check_row(writer, slot);
	ExecMaterializeSlot(slot);

	writer->nrows++;
	if (TTS_IS_BUFFERTUPLE(slot) || TTS_IS_HEAPTUPLE(slot))
		writer->bytes += ((HeapTupleTableSlot *) slot)->tuple->t_len;
	if (writer->nrows == writer->max_rows || writer->bytes >= MAX_BUFFERED_BYTES)
		flush(writer);
	return position;
}

void
es_writer_end(EventWriter *writer)
{
	EState	   *estate = writer->estate;

	if (writer->plan)
	{
		SPI_finish();
		return;
	}
	if (writer->nrows > 0)
		flush(writer);
	if (writer->bulk)
	{
		FreeBulkInsertState(writer->bulk);
		table_finish_bulk_insert(writer->table->rel, 0);
	}
	if (writer->result->ri_TrigDesc)
	{
		ExecASInsertTriggers(estate, writer->result, writer->capture);
		AfterTriggerEndQuery(estate);
	}
	for (int i = 0; i < writer->max_rows && writer->slots[i]; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	ExecResetTupleTable(estate->es_tupleTable, false);
	estate->es_tupleTable = NIL;

	/* The locks on the indexes stay: to release them here costs more. */
	for (int i = 0; i < writer->result->ri_NumIndices; i++)
	{
		es_index_insert_cleanup(writer->result->ri_IndexRelationDescs[i],
								writer->result->ri_IndexRelationInfo[i]);
		index_close(writer->result->ri_IndexRelationDescs[i], NoLock);
	}
	estate->es_opened_result_relations = NIL;
	ExecCloseResultRelations(estate);
	es_index_state_give_back(writer->state, writer->table);
}

/*
 * The executor's state for inserting into the table, as COPY sets it up, but
 * that what it takes for the indexes may have been there already.
 */
static void
open_result(EventWriter *writer)
{
	Relation	rel = writer->table->rel;
	IndexState *state = es_index_state_take(writer->table);
	ResultRelInfo *result = makeNode(ResultRelInfo);

	writer->state = state;
	writer->estate = state->estate;
	writer->result = result;
	writer->cid = GetCurrentCommandId(true);
	writer->estate->es_output_cid = writer->cid;
	InitResultRelInfo(result, rel, 1, NULL, 0);

	result->ri_NumIndices = state->nindexes;
	result->ri_IndexRelationInfo = state->infos;
	result->ri_IndexRelationDescs = palloc(sizeof(Relation) * Max(state->nindexes, 1));
	for (int i = 0; i < state->nindexes; i++)
	{
		Relation	index = index_open(state->indexids[i], RowExclusiveLock);
		IndexInfo  *info = state->infos[i];

		result->ri_IndexRelationDescs[i] = index;
		/* CREATE INDEX CONCURRENTLY changes it, and tells only the index. */
		info->ii_ReadyForInserts = index->rd_index->indisready;
		info->ii_AmCache = NULL;
		info->ii_Context = CurrentMemoryContext;
	}

	drop_insert_guard(writer);
	if (result->ri_TrigDesc == NULL)
		return;
	writer->estate->es_opened_result_relations = list_make1(result);
	AfterTriggerBeginQuery();
	writer->capture = MakeTransitionCaptureState(result->ri_TrigDesc,
												 RelationGetRelid(rel), CMD_INSERT);
}

/* InitResultRelInfo() made a copy of the trigger descriptor, so it is ours. */
static void
drop_insert_guard(EventWriter *writer)
{
	ResultRelInfo *result = writer->result;
	TriggerDesc *desc = result->ri_TrigDesc;
	int			kept = 0;

	desc->trig_insert_before_row = false;
	for (int i = 0; i < desc->numtriggers; i++)
	{
		Trigger    *trigger = &desc->triggers[i];

		if (trigger->tgfoid == writer->table->insert_guard)
			continue;
		if (TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
								 TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_INSERT))
			desc->trig_insert_before_row = true;
		desc->triggers[kept++] = *trigger;
	}
	desc->numtriggers = kept;
	if (!desc->trig_insert_before_row && !desc->trig_insert_after_row &&
		!desc->trig_insert_before_statement &&
		!desc->trig_insert_after_statement && !desc->trig_insert_new_table)
		result->ri_TrigDesc = NULL;
}

/* Domains can have constraints that only coercion checks. */
static Expr *
null_of_domain(Form_pg_attribute att)
{
	Const	   *null = makeNullConst(getBaseType(att->atttypid), -1, att->attcollation);
	CoerceToDomain *coerce = makeNode(CoerceToDomain);

	coerce->arg = (Expr *) null;
	coerce->resulttype = att->atttypid;
	coerce->resulttypmod = att->atttypmod;
	coerce->resultcollid = att->attcollation;
	coerce->coercionformat = COERCE_IMPLICIT_CAST;
	coerce->location = -1;
	return (Expr *) coerce;
}

/* The defaults of the columns that are not ours. */
static void
prepare_defaults(EventWriter *writer)
{
	Relation	rel = writer->table->rel;
	TupleDesc	desc = RelationGetDescr(rel);
	MemoryContext old;

	if (writer->table->plain)
		return;
	old = MemoryContextSwitchTo(writer->estate->es_query_cxt);
	for (int i = 0; i < ES_NUM_COLUMNS; i++)
		writer->ours = bms_add_member(writer->ours, writer->table->attnum[i]);
	writer->default_column = palloc(sizeof(AttrNumber) * desc->natts);
	writer->default_value = palloc(sizeof(ExprState *) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Expr	   *value;

		if (att->attisdropped || att->attgenerated ||
			bms_is_member(att->attnum, writer->ours))
			continue;
		value = (Expr *) build_column_default(rel, att->attnum);
		if (value == NULL && get_typtype(att->atttypid) == TYPTYPE_DOMAIN)
			value = null_of_domain(att);
		if (value == NULL)
			continue;
		value = expression_planner(value);
		if (contain_volatile_functions((Node *) value))
			writer->one_by_one = true;
		writer->default_column[writer->ndefaults] = att->attnum;
		writer->default_value[writer->ndefaults++] =
			ExecInitExpr(value, NULL);
	}
	MemoryContextSwitchTo(old);
}

static TupleTableSlot *
next_slot(EventWriter *writer)
{
	TupleTableSlot **slot = &writer->slots[writer->nrows];

	if (*slot == NULL)
		*slot = table_slot_create(writer->table->rel, NULL);
	return ExecClearTuple(*slot);
}

static void
fill_slot(EventWriter *writer, TupleTableSlot *slot, NewEvent *event)
{
	EventTable *table = writer->table;

	if (table->plain)
	{
		memcpy(slot->tts_values, event->values, sizeof(event->values));
		memcpy(slot->tts_isnull, event->nulls, sizeof(event->nulls));
	}
	else
	{
		ExprContext *econtext = GetPerTupleExprContext(writer->estate);

		memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
		for (int i = 0; i < ES_NUM_COLUMNS; i++)
		{
			slot->tts_values[table->attnum[i] - 1] = event->values[i];
			slot->tts_isnull[table->attnum[i] - 1] = event->nulls[i];
		}
		for (int i = 0; i < writer->ndefaults; i++)
		{
			int			column = writer->default_column[i] - 1;

			slot->tts_values[column] =
				ExecEvalExprSwitchContext(writer->default_value[i], econtext,
										  &slot->tts_isnull[column]);
		}
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = table->relid;
}

/*
 * Fires the users' BEFORE ROW triggers.  They may change what the event says,
 * but not which event it is; what they leave is checked like any input.
 */
static void
fire_before_row(EventWriter *writer, TupleTableSlot *slot, NewEvent *event)
{
	EventTable *table = writer->table;
	const char *changed = NULL;
	bool		isnull;
	Datum		value;

	if (!ExecBRInsertTriggers(writer->estate, writer->result, slot))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a BEFORE INSERT trigger of \"%s\" has suppressed an event",
						RelationGetRelationName(table->rel)),
				 errdetail("An append writes all of its events or none."),
				 errhint("Raise an error in the trigger to refuse the append."),
				 errtable(table->rel)));

	value = es_slot_datum(slot, table, ES_STREAM, &isnull);
	if (isnull || !DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, value, event->values[ES_STREAM])))
		changed = "stream";
	value = es_slot_datum(slot, table, ES_EVENT_ID, &isnull);
	if (isnull || memcmp(DatumGetPointer(value), DatumGetPointer(event->values[ES_EVENT_ID]), UUID_LEN) != 0)
		changed = "event_id";
	value = es_slot_datum(slot, table, ES_VERSION, &isnull);
	if (isnull || DatumGetInt64(value) != DatumGetInt64(event->values[ES_VERSION]))
		changed = "version";
	value = es_slot_datum(slot, table, ES_POSITION, &isnull);
	if (isnull || DatumGetInt64(value) != DatumGetInt64(event->values[ES_POSITION]))
		changed = "position";
	if (changed)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a BEFORE INSERT trigger of \"%s\" has changed the %s of an event",
						RelationGetRelationName(table->rel), changed),
				 errhint("Triggers may change what an event says, but not its position, stream, version or event_id."),
				 errtable(table->rel)));

	value = es_slot_datum(slot, table, ES_TYPE, &isnull);
	es_check_type(isnull ? NULL : DatumGetTextPP(value));
	value = es_slot_datum(slot, table, ES_SCHEMA_VERSION, &isnull);
	if (!isnull)
		es_check_schema_version(DatumGetInt32(value));

	/* recorded_at is never the writer's, nor a trigger's. */
	value = es_slot_datum(slot, table, ES_RECORDED_AT, &isnull);
	if (isnull || value != event->values[ES_RECORDED_AT])
	{
		int			column = table->attnum[ES_RECORDED_AT] - 1;

		slot_getallattrs(slot);
		slot->tts_values[column] = event->values[ES_RECORDED_AT];
		slot->tts_isnull[column] = false;
		ExecForceStoreHeapTuple(heap_form_tuple(slot->tts_tupleDescriptor,
												slot->tts_values, slot->tts_isnull),
								slot, true);
		slot->tts_tableOid = table->relid;
	}
}

/* Generated columns and constraints. */
static void
check_row(EventWriter *writer, TupleTableSlot *slot)
{
	Relation	rel = writer->table->rel;
	TupleDesc	desc = RelationGetDescr(rel);

	if (desc->constr && desc->constr->has_generated_stored)
		ExecComputeStoredGenerated(writer->result, writer->estate, slot, CMD_INSERT);
	if (!writer->table->plain)
	{
		slot_getallattrs(slot);
		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i);

			if (att->attnotnull && !att->attgenerated && slot->tts_isnull[i] &&
				!bms_is_member(att->attnum, writer->ours))
				ereport(ERROR,
						(errcode(ERRCODE_NOT_NULL_VIOLATION),
						 errmsg("null value in column \"%s\" of event table \"%s\" violates not-null constraint",
								NameStr(att->attname), RelationGetRelationName(rel)),
						 errdetail("Appending functions fill the event store's own columns; others get their defaults."),
						 errhint("Give the column a default, set it in a BEFORE INSERT trigger, or append with a plain INSERT."),
						 errtablecol(rel, att->attnum)));
		}
	}
	if (desc->constr)
		ExecConstraints(writer->result, slot, writer->estate);
}

/* Writes the rows that are waiting, with their index entries. */
static void
flush(EventWriter *writer)
{
	ResultRelInfo *result = writer->result;
	Relation	rel = writer->table->rel;
	volatile int current = 0;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		if (writer->nrows == 1)
			table_tuple_insert(rel, writer->slots[0], writer->cid, 0, writer->bulk);
		else
		{
			MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(writer->estate));

			table_multi_insert(rel, writer->slots, writer->nrows, writer->cid, 0, writer->bulk);
			MemoryContextSwitchTo(old);
		}
		for (int i = 0; i < writer->nrows; i++)
		{
			List	   *recheck;

			current = i;
			recheck = es_insert_index_tuples(result, writer->slots[i], writer->estate);
			current = -1;
			ExecARInsertTriggers(writer->estate, result, writer->slots[i],
								 recheck, writer->capture);
			list_free(recheck);
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		if (current >= 0)
			unique_violation(writer, writer->slots[current]);
		PG_RE_THROW();
	}
	PG_END_TRY();

	for (int i = 0; i < writer->nrows; i++)
		ExecClearTuple(writer->slots[i]);
	writer->nrows = 0;
	writer->bytes = 0;
}

/*
 * Two transactions may race with one event id in two streams: the unique index
 * decides, and the loser gets the error that it would have got a moment later.
 * A version can be there already only if a trigger has appended meanwhile, and
 * a position only if the sequence has been set back.
 */
static void
unique_violation(EventWriter *writer, TupleTableSlot *slot)
{
	EventTable *table = writer->table;
	ResultRelInfo *result = writer->result;
	ErrorData  *error;
	Oid			violated = InvalidOid;
	bool		isnull;

	if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
		return;
	error = CopyErrorData();
	for (int i = 0; i < result->ri_NumIndices; i++)
	{
		Relation	index = result->ri_IndexRelationDescs[i];

		if (error->constraint_name &&
			strcmp(error->constraint_name, RelationGetRelationName(index)) == 0)
			violated = RelationGetRelid(index);
	}
	FreeErrorData(error);
	if (violated == table->event_id_index)
	{
		FlushErrorState();
		es_event_id_conflict(table, es_slot_datum(slot, table, ES_EVENT_ID, &isnull),
							 "Another transaction has just stored an event with that id.");
	}
	if (violated == table->version_index)
	{
		FlushErrorState();
		ereport(ERROR,
				(errcode(ES_WRONG_EXPECTED_VERSION),
				 errmsg("stream \"%s\" has been appended to in the middle of this append",
						TextDatumGetCString(es_slot_datum(slot, table, ES_STREAM, &isnull))),
				 errdetail("Version " INT64_FORMAT " is there already; only a trigger of the table can have appended it.",
						   es_slot_int64(slot, table, ES_VERSION)),
				 errhint("A BEFORE INSERT trigger must not append to the stream of its own event."),
				 errtable(table->rel)));
	}
	if (violated == table->position_index)
	{
		FlushErrorState();
		es_unguarded(table->rel,
					 psprintf("Its sequence gave out position " INT64_FORMAT ", which an event has: it has been set back.",
							  es_slot_int64(slot, table, ES_POSITION)));
	}
}

/*
 * For a caller to whom row-level security applies.  Position and recorded_at
 * are the guard's to set; the position is read back without RETURNING, which
 * would take a policy for SELECT.
 */
static void
prepare_plan(EventWriter *writer)
{
	MemoryContext caller = CurrentMemoryContext;
	StringInfoData query;
	Oid			types[ES_NUM_COLUMNS];
	int			n = 0;

	initStringInfo(&query);
	appendStringInfo(&query, "INSERT INTO %s (", es_qualified_name(writer->table->rel));
	for (int i = 0; i < ES_NUM_COLUMNS; i++)
	{
		if (i == ES_POSITION || i == ES_RECORDED_AT)
			continue;
		appendStringInfo(&query, "%s%s", n > 0 ? ", " : "", es_columns[i].name);
		types[n++] = es_columns[i].type;
	}
	appendStringInfoString(&query, ") VALUES (");
	for (int i = 1; i <= n; i++)
		appendStringInfo(&query, "%s$%d", i > 1 ? ", " : "", i);
	appendStringInfoChar(&query, ')');

	SPI_connect();
	writer->plan = SPI_prepare(query.data, n, types);
	/* What the caller allocates now must outlive SPI_finish(). */
	MemoryContextSwitchTo(caller);
	if (writer->plan == NULL)
		elog(ERROR, "could not prepare an insert: %s", SPI_result_code_string(SPI_result));
}

static int64
put_by_plan(EventWriter *writer, NewEvent *event)
{
	Datum		values[ES_NUM_COLUMNS];
	char		nulls[ES_NUM_COLUMNS];
	int			n = 0;
	ScanKeyData key[2];
	EventScan  *scan;
	TupleTableSlot *slot;
	int64		position;
	bool		isnull;
	MemoryContext caller = CurrentMemoryContext;

	for (int i = 0; i < ES_NUM_COLUMNS; i++)
	{
		if (i == ES_POSITION || i == ES_RECORDED_AT)
			continue;
		values[n] = event->values[i];
		nulls[n++] = event->nulls[i] ? 'n' : ' ';
	}
	if (SPI_execute_plan(writer->plan, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert an event");
	MemoryContextSwitchTo(caller);

	es_key_text(&key[0], 1, DatumGetTextPP(event->values[ES_STREAM]));
	es_key_int64(&key[1], 2, BTEqualStrategyNumber, DatumGetInt64(event->values[ES_VERSION]));
	scan = es_scan_begin(writer->table, writer->table->version_index, SnapshotSelf, 2, key);
	slot = es_scan_next(scan, ForwardScanDirection);
	if (slot == NULL ||
		memcmp(DatumGetPointer(es_slot_datum(slot, writer->table, ES_EVENT_ID, &isnull)),
			   DatumGetPointer(event->values[ES_EVENT_ID]), UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a BEFORE INSERT trigger of \"%s\" has suppressed an event or changed its event_id",
						RelationGetRelationName(writer->table->rel)),
				 errhint("Triggers may change what an event says, but not its position, stream, version or event_id."),
				 errtable(writer->table->rel)));
	position = es_slot_int64(slot, writer->table, ES_POSITION);
	es_scan_end(scan);
	return position;
}
