/*
 * xact_state.h
 *	  The locks of the append protocol, and what a transaction remembers.
 */
#ifndef ES_XACT_STATE_H
#define ES_XACT_STATE_H

#include "event_table.h"
#include "shared_state.h"
#include "storage/lock.h"

/* What this transaction has done to one event table. */
typedef struct TableXact
{
	Oid			relid;
	bool		exclusive;		/* we hold SHARE ROW EXCLUSIVE to the end */
	bool		in_flight;		/* we hold the in-flight lock ... */
	int64		tag;			/* ... tagged with this position */
	int64		last_position;	/* the last that we have drawn */
	bool		wake;			/* the worker shall look at it at the end */
	FeedSlot   *feed;			/* what is known of its slot before that */
} TableXact;

/*
 * A rewriting ALTER TABLE copies the rows of this one.  What a default's
 * function appended meanwhile would be lost with the old rows.
 */
extern Oid	es_table_being_rewritten;
extern void es_begin_rewrite(Oid relid);

extern void es_xact_init(void);
extern bool es_lock_to_end(const LOCKTAG *tag, LOCKMODE mode, bool wait);
extern void es_lock_table_exclusively(Oid relid);
extern bool es_is_exclusive(EventTable *table);
extern uint32 es_stream_hash(const text *stream);
extern void es_lock_stream(EventTable *table, uint32 hash, LOCKMODE mode);
extern TableXact *es_enter_flight(EventTable *table);
extern int64 es_draw_position(EventTable *table, TableXact *xact);
extern bool es_in_flight(Oid relid);
extern int64 es_last_drawn(Oid relid);
extern int64 es_positions_drawn(void);
extern void es_wake_at_end(Oid relid);
extern void es_rescan_at_end(void);
extern void es_projections_changed_at_end(void);
extern int64 es_least_tag_in_flight(Oid relid, int64 mark);

#endif							/* ES_XACT_STATE_H */
