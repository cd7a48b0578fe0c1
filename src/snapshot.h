/*
 * snapshot.h
 *	  Saved states of streams.
 */
#ifndef ES_SNAPSHOT_H
#define ES_SNAPSHOT_H

extern void es_forget_snapshots(Oid event_table);

#endif							/* ES_SNAPSHOT_H */
