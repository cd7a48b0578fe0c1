/*
 * projection_checkpoint.h
 *	  How far the partitions of projections are.
 */
#ifndef ES_PROJECTION_CHECKPOINT_H
#define ES_PROJECTION_CHECKPOINT_H

#include "feed.h"
#include "nodes/pg_list.h"
#include "projection.h"

/* What went wrong, and with which event; a position of 0: with none in particular. */
typedef struct EventError
{
	int64		position;
	pg_uuid_t	event_id;
	char	   *stream;
	char	   *type;
	char	   *trace_id;		/* NULL: none; not stored */
	int			sqlerrcode;
	char	   *message;
	char	   *context;		/* or NULL */
} EventError;

/* A row of event_store.projection_checkpoints. */
typedef struct ProjectionCheckpoint
{
	char	   *projection;
	bool		rebuild;
	int			partition;
	int64		position;		/* 0: before the first event */
	pg_uuid_t	event_id;		/* of the event there */
	int64		events;			/* handled so far */
	int64		batches;
	int64		errors;
	int64		own_appends;	/* batches that appended to the event table */
	double		rate;			/* events a second, of late */
	TimestampTz updated_at;
	int			attempts;		/* that failed, since the last one that did not */
	bool		failed;			/* there will be no other one by itself */
	TimestampTz retry_at;		/* not before this; 0: at once */
	EventError *error;			/* the last one; NULL: none */
	TimestampTz error_at;
} ProjectionCheckpoint;

extern ProjectionCheckpoint *es_find_checkpoint(const char *projection, bool rebuild, int partition);
extern List *es_list_checkpoints(const char *projection, bool rebuild);
extern void es_save_checkpoint(ProjectionCheckpoint *checkpoint);
extern void es_insert_checkpoints(Projection *projection, bool rebuild, Checkpoint at);
extern void es_delete_checkpoints(const char *projection, bool rebuild);
extern bool es_is_transient(int sqlerrcode);
extern void es_note_checkpoint_error(Projection *projection, ProjectionCheckpoint *checkpoint, EventError *error);

#endif							/* ES_PROJECTION_CHECKPOINT_H */
