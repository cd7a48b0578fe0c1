/*
 * feed_marks.h
 *	  What standbys know of the feeds.
 */
#ifndef ES_FEED_MARKS_H
#define ES_FEED_MARKS_H

extern int64 es_recorded_mark(Oid event_table);
extern bool es_record_mark(Oid event_table, int64 mark);
extern void es_forget_mark(Oid event_table);

#endif							/* ES_FEED_MARKS_H */
