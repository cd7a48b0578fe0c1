/*
 * project.h
 *	  Running projections.
 */
#ifndef ES_PROJECT_H
#define ES_PROJECT_H

#include "batch.h"
#include "handler.h"

/* A partition that a background process is to run. */
typedef struct Partition
{
	char	   *projection;
	Oid			owner;
	Oid			event_table;
	bool		rebuild;		/* into the shadow */
	int			number;			/* from 1 */
	int64		position;		/* its checkpoint, as far as we know */
	TimestampTz retry_at;		/* due at this time in any case; 0: not */
	int64		count;			/* events of the next batch; 0: not known */
	int64		last_done;		/* events of the last one ... */
	MonotonicTime last_elapsed; /* ... and how long it took */
} Partition;

typedef enum StepResult
{
	ES_STEP_CAUGHT_UP,			/* nothing left to do, for now */
	ES_STEP_MORE,				/* there may be more to do at once */
	ES_STEP_BUSY,				/* somebody else has it */
	ES_STEP_RETRY,				/* failed; not before retry_at */
	ES_STEP_GONE				/* not to be run any more: look again which are */
} StepResult;

/* One run of a partition in the current transaction. */
typedef struct Run
{
	Projection *projection;
	bool		rebuild;
	ProjectionCheckpoint *at;
	int64		until;			/* no event beyond this position */
	int64		max_count;		/* of events */
	bool		carefully;		/* in subtransactions, so that an error is pinned on an event */
	bool		in_background;
	bool		trial;			/* to be rolled back: whatever fails is left out, and listed */

	/* What came of it. */
	struct HTAB *parked_streams;	/* NULL: none */
	EventBatch *batch;
	int64		done;			/* events of the batch that count */
	int64		parked;			/* of those */
	EventError *error;			/* it stops before this event */
	List	   *errors;			/* of a trial: EventError */
	TimestampTz write_at;		/* the checkpoint has moved, and will be written then; 0: no */
} Run;

extern List *es_background_partitions(Oid owner);
extern StepResult es_project_step(Partition *partition);
extern bool es_run_batch(Run *run);
extern bool es_try_events(Run *run, int64 from, int64 to, EventError *error);
extern void es_run_to_end(Projection *projection, bool rebuild, int64 until, List *limits);
extern Checkpoint es_projection_start(Projection *projection);
extern Checkpoint es_projection_at(Projection *projection, int64 position);
extern bool es_is_of_log(Projection *projection, ProjectionCheckpoint *at);
extern Checkpoint es_projection_end(Projection *projection);
extern void es_check_not_in_flight(Projection *projection);
extern void es_keep_appenders_out(Projection *projection);
extern bool es_may_go_on(Projection **projection, bool rebuild);
extern void es_check_isolation(const char *function);
extern void es_check_not_paused(Projection *projection);
pg_noreturn extern void es_projection_failed(Projection *projection, EventError *error);

#endif							/* ES_PROJECT_H */
