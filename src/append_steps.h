/*
 * append_steps.h
 *	  The steps of an append.
 */
#ifndef ES_APPEND_STEPS_H
#define ES_APPEND_STEPS_H

#include "event_table.h"

/*
 * An event to be written.  The caller of es_append() fills in type,
 * schema_version, data, metadata, correlation_id, causation_id, occurred_at
 * and, if it has one, event_id; the append does the rest.
 */
typedef struct NewEvent
{
	Datum		values[ES_NUM_COLUMNS];
	bool		nulls[ES_NUM_COLUMNS];
} NewEvent;

/* A stream to be checked and, if it has events, to be appended to. */
typedef struct StreamAppend
{
	text	   *stream;
	bool		check_version;
	int64		expected_version;
	bool		ids_given;
	int			nevents;
	NewEvent   *events;

	/* set by es_append() */
	uint32		hash;
	int64		version;		/* before the append */
	int64		first_version;	/* and the rest for the caller */
	int64		last_version;
	int64		first_position;
	int64		last_position;
	bool		duplicate;
} StreamAppend;

extern void es_append(EventTable *table, StreamAppend *streams, int nstreams);
extern int64 es_stream_version(EventTable *table, const text *stream,
							   uint32 hash);
extern bool es_event_id_exists(EventTable *table, Datum event_id);
extern void es_check_versions(EventTable *table, StreamAppend *streams,
							  int nstreams);
extern void es_force_sync_commit(void);
pg_noreturn extern void es_event_id_conflict(EventTable *table, Datum event_id,
											 const char *detail);

#endif							/* ES_APPEND_STEPS_H */
