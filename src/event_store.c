/*
 * event_store.c
 *	  The library's entry point.
 */
#include "postgres.h"

#include "event_table.h"
#include "fmgr.h"
#include "launcher.h"
#include "miscadmin.h"
#include "settings.h"
#include "shared_state.h"
#include "upcast.h"
#include "utility.h"
#include "xact_state.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	es_settings_init();
	es_event_table_init();
	es_upcast_init();
	es_xact_init();

	/* pg_upgrade wants nobody at work. */
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		es_shared_state_init();
		es_utility_init();
		es_launcher_init();
	}
}
