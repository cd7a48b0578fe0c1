/*
 * settings.c
 *	  Every setting of this extension.
 *
 * Those of sessions weigh a guarantee against speed for everybody who reads the
 * event tables, so only superusers set them, or whom they let.  A parallel
 * worker that is the first to load the library may set them from what ALTER
 * DATABASE says; it neither appends nor notifies.
 *
 * Those of the background workers are the server's.
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "miscadmin.h"
#include "settings.h"
#include "test_hooks.h"
#include "utils/guc.h"

int			es_notify = ES_NOTIFY_AUTO;
bool		es_sync_commit = true;
int			es_notify_interval = 5;
int			es_standby_interval = 200;
int			es_worker_idle_timeout = 300;
int			es_max_workers = 4;
int			es_max_event_tables = 1000;
int			es_max_projectors = 3;

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
							 "auto: the background worker of the database, as soon as the events are readable; where there is none, as transaction. "
							 "transaction: each transaction that has appended, when it commits; such commits queue up behind one lock of the cluster. "
							 "off: nobody. The worker goes by what holds for the server or its database.",
							 &es_notify,
							 ES_NOTIFY_AUTO, notify_modes,
							 PGC_SUSET, GUC_ALLOW_IN_PARALLEL, NULL, NULL, NULL);

	DefineCustomBoolVariable("event_store.sync_commit",
							 "Flushes the WAL at the commit of every append, whatever synchronous_commit says.",
							 "When off, synchronous_commit = off holds for appends too, and a crash of the server can take back events that a feed has already delivered.",
							 &es_sync_commit,
							 true,
							 PGC_SUSET, GUC_ALLOW_IN_PARALLEL, NULL, NULL, NULL);

	DefineCustomIntVariable("event_store.notify_interval",
							"The least time between two notifications of the background worker about one event table.",
							"Appends that become readable in the meantime are covered by the next one.",
							&es_notify_interval,
							5, 1, 60 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("event_store.standby_interval",
							"The least time between two records of how far standbys may read the feed of one event table.",
							"The background worker writes one when there are new events. -1 means never; feeds cannot be read on standbys then.",
							&es_standby_interval,
							200, -1, 60 * 60 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("event_store.worker_idle_timeout",
							"How long the background worker of a database stays when there is nothing to do.",
							"It is started again by the next append. -1 means that it stays.",
							&es_worker_idle_timeout,
							300, -1, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomIntVariable("event_store.max_workers",
							"How many databases can have a background worker at once.",
							"They are taken from max_worker_processes. Where more databases need one, the workers take turns.",
							&es_max_workers,
							4, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* These take effect when the server starts with the library preloaded. */
	DefineCustomIntVariable("event_store.max_event_tables",
							"How many event tables of the whole server the background workers can look after.",
							"Further ones do without: their writers notify by themselves, and standbys cannot read their feeds.",
							&es_max_event_tables,
							1000, 1, 1000 * 1000,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
							0, NULL, NULL, NULL);

	DefineCustomIntVariable("event_store.max_projectors",
							"How many background processes run projections at once, on the whole server.",
							"They are taken from max_worker_processes. Where more are needed, they take turns.",
							&es_max_projectors,
							3, 1, 256,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
							0, NULL, NULL, NULL);

	ES_TEST_HOOKS_INIT();
	MarkGUCPrefixReserved("event_store");
}
