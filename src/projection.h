/*
 * projection.h
 *	  The registry of projections.
 */
#ifndef ES_PROJECTION_H
#define ES_PROJECTION_H

#include "access/genam.h"
#include "nodes/pg_list.h"
#include "read.h"
#include "utils/array.h"

#define ES_PROJECTIONS		"registered_projections"
#define ES_CHECKPOINTS		"projection_checkpoints"
#define ES_PARKED			"projection_parked"

#define ES_MAX_PARTITIONS	256

typedef enum ProjectionMode
{
	ES_MODE_ASYNC,				/* by a background worker */
	ES_MODE_INLINE,				/* in the transaction that appends */
	ES_MODE_MANUAL				/* by run_projection() */
} ProjectionMode;

typedef enum ErrorPolicy
{
	ES_STOP,
	ES_PARK,
	ES_PARK_STREAM				/* with what comes later in its stream */
} ErrorPolicy;

/* Which rows of the last two: what is live, or that of a rebuild. */
typedef enum ProjectionRows
{
	ES_LIVE_ROWS,
	ES_REBUILD_ROWS,
	ES_ALL_ROWS
} ProjectionRows;

/* A row of event_store.registered_projections. */
typedef struct Projection
{
	char	   *name;
	Oid			owner;
	Oid			event_table;
	char	   *statement;		/* NULL: a function */
	char	   *function;		/* its signature, or NULL */
	TextSet    *types;			/* NULL: all */
	TextSet    *categories;
	ProjectionMode mode;
	int			partitions;
	int64		start_after;
	char	   *search_path;
	ArrayType  *tables;			/* regclass[], what it maintains; or NULL */
	ErrorPolicy on_error;
	int			max_attempts;
	int64		retry_delay;	/* microseconds */
	int64		max_count;		/* of a batch */
	int64		max_time;		/* of a batch, in microseconds */
	bool		paused;
	bool		restored;		/* and so paused */
	char	   *shadow_schema;	/* NULL: no rebuild goes on */
} Projection;

extern Projection *es_find_projection(const char *name);
extern Projection *es_get_projection(const char *name);
extern char *es_arg_projection_name(FunctionCallInfo fcinfo);
extern Projection *es_arg_projection(FunctionCallInfo fcinfo, const char *command);
extern List *es_list_projections(void);
extern const char *const es_projection_modes[];
extern const char *const es_error_policies[];

extern SysScanDesc es_scan_projection(Relation rel, const char *name, ProjectionRows rows);
extern void es_insert_projection(Projection *projection);
extern void es_update_projection(Projection *projection);
extern void es_delete_projection(const char *name);
extern void es_delete_projection_rows(const char *table, const char *name, ProjectionRows rows);
extern void es_forget_projections(Oid event_table);
extern void es_check_projection_owner(Projection *projection);
extern void es_lock_projection(const char *name);
extern bool es_lock_partition(const char *name, bool rebuild, int partition, bool wait);

#endif							/* ES_PROJECTION_H */
