/*
 * event_type.h
 *	  What is known about the types of events.
 */
#ifndef ES_EVENT_TYPE_H
#define ES_EVENT_TYPE_H

extern void es_forget_event_types(Oid event_table);

#endif							/* ES_EVENT_TYPE_H */
