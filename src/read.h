/*
 * read.h
 *	  Reading events.
 */
#ifndef ES_READ_H
#define ES_READ_H

#include "access/sdir.h"
#include "event_table.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* A set of texts, for filters. */
typedef struct TextSet
{
	int			n;
	text	  **members;		/* sorted */
} TextSet;

/*
 * Which events to read, in which order.  NULL members do not restrict.  With a
 * stream the order is that of the versions, else that of the positions; low
 * and high bound it, inclusively.  With after_stream the order is that of the
 * streams, from there to before_stream, both exclusively; low and high are not
 * looked at. Filters look at what is stored, receivers get events
 * upcast if that is wanted.
 */
typedef struct EventQuery
{
	EventTable *table;
	Snapshot	snapshot;
	bool		backward;
	int64		low;
	int64		high;
	int64		max_count;
	int64		max_scanned;

	pg_uuid_t  *event_id;
	text	   *stream;
	text	   *after_stream;
	text	   *before_stream;
	text	   *category;
	text	   *correlation_id;
	TextSet    *types;
	TextSet    *categories;
	TextSet    *streams;
	int			partitions;		/* above 1: only the streams of ... */
	int			partition;		/* ... this one, from 1 on */
	TimestampTz *as_of;

	bool		upcast;			/* runs users' code; es_query_init() says no */
	struct Upcasting *upcasting;	/* es_read_events()'s own */
} EventQuery;

typedef enum Received
{
	ES_MORE,					/* taken, and there may be more */
	ES_ENOUGH,					/* taken, but no more */
	ES_FULL						/* not taken */
} Received;

/*
 * Gets each event as a row of the table it is handed; that is the event table
 * or one of the same columns.
 */
typedef Received (*EventReceiver) (EventTable *table, TupleTableSlot *slot, void *arg);

typedef struct EventQueryResult
{
	bool		complete;		/* there was nothing left to scan */
	int64		last_scanned;	/* the version or position, if not complete */
} EventQueryResult;

extern void es_query_init(EventQuery *query, EventTable *table, Snapshot snapshot);
extern EventQueryResult es_read_events(EventQuery *query, EventReceiver receive, void *arg);
extern bool es_matches(EventQuery *query, EventTable *table, TupleTableSlot *slot);
extern void es_return_events(FunctionCallInfo fcinfo, EventQuery *query);
extern int	es_compare_texts(const text *a, const text *b);
extern TextSet *es_arg_text_set(FunctionCallInfo fcinfo, int arg, const char *name);
extern TextSet *es_text_set(ArrayType *array, const char *name);
extern ArrayType *es_text_set_array(TextSet *set);
extern int	es_partition_of(const text *stream, int partitions);
extern int64 es_arg_max_count(FunctionCallInfo fcinfo, int arg, int64 otherwise);

#endif							/* ES_READ_H */
