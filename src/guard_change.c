/*
 * guard_change.c
 *	  The change guard: nobody updates, deletes or truncates.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "errors.h"
#include "fmgr.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(event_store_guard_change);

Datum
event_store_guard_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *command;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("event_store._guard_change() must be called as a trigger")));
	command = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "UPDATE" :
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "DELETE" :
		TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event) ? "TRUNCATE" : "INSERT";
	ereport(ERROR,
			(errcode(ES_APPEND_ONLY_VIOLATION),
			 errmsg("cannot %s \"%s\": it is append-only", command,
					RelationGetRelationName(trigger->tg_relation)),
			 errdetail("What has been recorded is never changed, by nobody."),
			 errhint("Record what is right now as a new row."),
			 errtable(trigger->tg_relation)));
}
