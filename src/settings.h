/*
 * settings.h
 *	  The settings of this extension.
 */
#ifndef ES_SETTINGS_H
#define ES_SETTINGS_H

typedef enum NotifyMode
{
	ES_NOTIFY_OFF,
	ES_NOTIFY_TRANSACTION,
	ES_NOTIFY_AUTO
} NotifyMode;

extern int	es_notify;
extern bool es_sync_commit;
extern int	es_notify_interval;		/* ms */
extern int	es_standby_interval;	/* ms; -1: never */
extern int	es_worker_idle_timeout; /* s; -1: never */
extern int	es_max_workers;
extern int	es_max_event_tables;
extern int	es_max_projectors;

extern void es_settings_init(void);

#endif							/* ES_SETTINGS_H */
