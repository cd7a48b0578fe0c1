/*
 * inline.c
 *	  Projections that run in the appending transaction.
 *
 * By a trigger on the event table, AFTER INSERT FOR EACH STATEMENT, with a transition
 * table: so it sees the new events only, whichever way they have come in, and a
 * restore or a replication worker does not fire it.  It runs as the owner of
 * the projection, security-restricted.  What it raises fails the append.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "compat.h"
#include "errors.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "handler.h"
#include "inline.h"
#include "miscadmin.h"
#include "project.h"
#include "read.h"
#include "upcast.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(event_store_project_inline);

#define TRIGGER_PREFIX	"projection "

static Projection *projection_of(TriggerData *trigger);
static EventBatch *collect(Projection *projection, TriggerData *trigger);

static char *
trigger_name(Projection *projection)
{
	return psprintf(TRIGGER_PREFIX "%s", projection->name);
}

/* May it be inline?  Whoever could make a trigger could fail or slow down appends anyway. */
void
es_check_inline(Projection *projection)
{
	int			max = NAMEDATALEN - 1 - (int) strlen(TRIGGER_PREFIX);

	if ((int) strlen(projection->name) > max)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name of an inline projection must not be longer than %d bytes, but \"%s\" has %d",
						max, projection->name, (int) strlen(projection->name))));
	if (pg_class_aclcheck(projection->event_table, projection->owner, ACL_TRIGGER) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(projection->event_table)),
				 errdetail("An inline projection takes the privilege TRIGGER on the event table.")));
}

void
es_create_inline_trigger(Projection *projection)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(projection->event_table)),
												   get_rel_name(projection->event_table));
	char	   *sql = psprintf("CREATE TRIGGER %s AFTER INSERT ON %s REFERENCING NEW TABLE AS events"
							   " FOR EACH STATEMENT EXECUTE FUNCTION event_store._project_inline(%s)",
							   quote_identifier(trigger_name(projection)), table,
							   quote_literal_cstr(projection->name));

	SPI_connect();
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not create the trigger of projection \"%s\"", projection->name);
	SPI_finish();
}

/* Its projection's owner need not own the table. */
void
es_drop_inline_trigger(Projection *projection)
{
	ObjectAddress address = {
		.classId = TriggerRelationId,
		.objectId = get_trigger_oid(projection->event_table, trigger_name(projection), true)
	};

	if (OidIsValid(address.objectId))
		performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

/* Refuses what would make a projection lose events unseen. */
void
es_check_inline_triggers(Oid event_table)
{
	Relation	rel = relation_open(event_table, AccessShareLock);

	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgnargs != 1 || !es_is_our_function(trigger->tgfoid, "event_store_project_inline") ||
			((trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN || trigger->tgenabled == TRIGGER_FIRES_ALWAYS) &&
			 strncmp(trigger->tgname, TRIGGER_PREFIX, strlen(TRIGGER_PREFIX)) == 0 &&
			 strcmp(trigger->tgname + strlen(TRIGGER_PREFIX), trigger->tgargs[0]) == 0))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot disable or rename the trigger of inline projection \"%s\"", trigger->tgargs[0]),
				 errdetail("The projection would never see what is appended meanwhile."),
				 errhint("Its owner can change its mode. The owner of the table can drop the trigger: the projection is paused then, and not inline any more."),
				 errtable(rel)));
	}
	relation_close(rel, NoLock);
}

/*
 * The owner of the event table has dropped the trigger, which is his right.  He has the
 * table locked: so nobody appends, and the projection can go on from here.
 */
void
es_inline_trigger_dropped(Oid event_table, const char *trigger)
{
	Projection *projection = NULL;
	EventTable *table;

	if (strncmp(trigger, TRIGGER_PREFIX, strlen(TRIGGER_PREFIX)) == 0)
		projection = es_find_projection(trigger + strlen(TRIGGER_PREFIX));
	if (projection == NULL || projection->mode != ES_MODE_INLINE || projection->event_table != event_table)
		return;
	es_check_not_in_flight(projection);
	table = es_event_table_open(event_table, AccessShareLock, ES_FOR_LOOKING);
	projection->mode = ES_MODE_MANUAL;
	projection->paused = true;
	es_update_projection(projection);
	es_insert_checkpoints(projection, false, es_newest_checkpoint(table));
	es_event_table_close(table);
	ereport(WARNING,
			(errmsg("projection \"%s\" is not inline any more, and paused", projection->name)));
}

Datum
event_store_project_inline(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Projection *projection;
	SavedSession saved;
	EventBatch *batch;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		trigger->tg_newtable == NULL || trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function must be called as the trigger of an inline projection"),
				 errhint("event_store.create_projection(..., mode => 'inline') makes it.")));
	projection = projection_of(trigger);
	es_enter_handler(projection, NULL, &saved);
	batch = collect(projection, trigger);
	if (batch->count > 0)
		(void) es_run_handler(projection, false, batch, ES_NEVER);
	es_batch_end(batch);
	es_leave_handler(&saved);
	return PointerGetDatum(NULL);
}

/*
 * The projection whose trigger this is.  Anybody could make one that names somebody else's: so
 * it must be on that projection's event table, and be the only one.
 */
static Projection *
projection_of(TriggerData *trigger)
{
	Projection *projection = es_find_projection(trigger->tg_trigger->tgargs[0]);

	if (projection == NULL || projection->mode != ES_MODE_INLINE ||
		projection->event_table != RelationGetRelid(trigger->tg_relation) ||
		strcmp(trigger->tg_trigger->tgname, trigger_name(projection)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" of table \"%s\" is not that of an inline projection",
						trigger->tg_trigger->tgname, RelationGetRelationName(trigger->tg_relation)),
				 errhint("Drop the trigger.")));
	return projection;
}

/* The new events that the projection wants, as it would read them. */
static EventBatch *
collect(Projection *projection, TriggerData *trigger)
{
	EventTable *table = es_event_table_open(projection->event_table, AccessShareLock, ES_FOR_READING);
	Tuplestorestate *rows = trigger->tg_newtable;
	EventBatch *batch = es_batch_begin();
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation), &TTSOpsMinimalTuple);
	EventQuery	query;
	struct Upcasting *upcasting = es_upcast_begin(table);

	if (es_row_security_applies(table))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security of \"%s\" applies to the owner of inline projection \"%s\"",
						RelationGetRelationName(table->rel), projection->name),
				 errhint("Choose another mode: there the policies are applied.")));
	es_query_init(&query, table, NULL);
	query.types = projection->types;
	query.categories = projection->categories;
	tuplestore_select_read_pointer(rows, tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND));
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
		if (es_matches(&query, table, slot))
			(void) es_batch_add(table, upcasting ? es_upcast(upcasting, table, slot) : slot, batch);
	tuplestore_select_read_pointer(rows, 0);
	ExecDropSingleTupleTableSlot(slot);
	es_upcast_end(upcasting);
	es_event_table_close(table);
	return batch;
}
