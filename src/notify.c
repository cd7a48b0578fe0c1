/*
 * notify.c
 *	  Telling listeners that an event table has grown.
 *
 * The channel is named for the table's OID: valid and unique however long the
 * table's name is, and the same after a rename.  A restored table has another
 * one, so clients ask event_store.channel().
 */
#include "postgres.h"

#include "access/table.h"
#include "arguments.h"
#include "commands/async.h"
#include "event_table.h"
#include "fmgr.h"
#include "notify.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(event_store_channel);

static char *
channel_name(Oid relid)
{
	return psprintf("event_store_%u", relid);
}

Datum
event_store_channel(PG_FUNCTION_ARGS)
{
	EventTable *table = es_event_table_open(es_arg_table(fcinfo), AccessShareLock, ES_FOR_LOOKING);

	/* Keeps no lock, since it takes no privilege. */
	table_close(table->rel, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(channel_name(table->relid)));
}

void
es_send_notification(Oid relid, int64 position)
{
	char		payload[32];

	snprintf(payload, sizeof(payload), INT64_FORMAT, position);
	Async_Notify(channel_name(relid), payload);
}
