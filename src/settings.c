/*
 * settings.c
 *	  Every setting of this extension.
 *
 * All of them weigh a guarantee against speed for everybody who reads the
 * event tables, so only superusers set them, or whom they let.  A parallel
 * worker that is the first to load the library may set them from what ALTER
 * DATABASE says; it neither appends nor notifies.
 */
#include "postgres.h"

#include "compat.h"
#include "settings.h"
#include "utils/guc.h"

int			es_notify = ES_NOTIFY_AUTO;
bool		es_sync_commit = true;

static const struct config_enum_entry notify_modes[] = {
	{"auto", ES_NOTIFY_AUTO, false},
	{"transaction", ES_NOTIFY_TRANSACTION, false},
	{"off", ES_NOTIFY_OFF, false},
	{NULL, 0, false}
};

void
es_settings_init(void)
{
	DefineCustomEnumVariable("event_store.notify",
							 "Who notifies the listeners of an event table.",
							 "transaction: each transaction that has appended, when it commits; such commits queue up behind one lock of the cluster. "
							 "auto: the best way there is, at present the same as transaction. off: nobody.",
							 &es_notify,
							 ES_NOTIFY_AUTO, notify_modes,
							 PGC_SUSET, GUC_ALLOW_IN_PARALLEL, NULL, NULL, NULL);

	DefineCustomBoolVariable("event_store.sync_commit",
							 "Flushes the WAL at the commit of every append, whatever synchronous_commit says.",
							 "When off, synchronous_commit = off holds for appends too, and a crash of the server can take back events that a feed has already delivered.",
							 &es_sync_commit,
							 true,
							 PGC_SUSET, GUC_ALLOW_IN_PARALLEL, NULL, NULL, NULL);

	MarkGUCPrefixReserved("event_store");
}
