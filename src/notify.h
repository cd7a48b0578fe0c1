/*
 * notify.h
 *	  Telling listeners that an event table has grown.
 */
#ifndef ES_NOTIFY_H
#define ES_NOTIFY_H

extern void es_send_notification(Oid relid, int64 position);

#endif							/* ES_NOTIFY_H */
