/*
 * event_store.c
 *	  The library's entry point.
 */
#include "postgres.h"

#include "event_table.h"
#include "fmgr.h"
#include "settings.h"
#include "xact_state.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	es_settings_init();
	es_event_table_init();
	es_xact_init();
}
