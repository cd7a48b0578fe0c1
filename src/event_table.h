/*
 * event_table.h
 *	  What this backend knows about an event table.
 */
#ifndef ES_EVENT_TABLE_H
#define ES_EVENT_TABLE_H

#include "access/attnum.h"
#include "compat.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"
#include "utils/snapshot.h"

/* The columns of an event table, in the order of design, reads and JSON. */
typedef enum EventColumn
{
	ES_POSITION,
	ES_STREAM,
	ES_VERSION,
	ES_EVENT_ID,
	ES_TYPE,
	ES_SCHEMA_VERSION,
	ES_DATA,
	ES_METADATA,
	ES_CORRELATION_ID,
	ES_CAUSATION_ID,
	ES_OCCURRED_AT,
	ES_RECORDED_AT
} EventColumn;

#define ES_NUM_COLUMNS	(ES_RECORDED_AT + 1)

typedef struct EventColumnSpec
{
	const char *name;
	const char *definition;		/* what follows the name in CREATE TABLE */
	Oid			type;
	bool		not_null;
} EventColumnSpec;

extern const EventColumnSpec es_columns[ES_NUM_COLUMNS];

/* The triggers that make a table an event table or an append-only table. */
typedef struct GuardSpec
{
	const char *name;
	const char *events;			/* as in CREATE TRIGGER */
	const char *level;
	const char *function;		/* SQL name, in schema event_store */
	const char *symbol;			/* C name, by which we know it again */
	int16		tgtype;
	char		tgenabled;
} GuardSpec;

#define ES_NUM_CHANGE_GUARDS	2	/* they come first */
#define ES_INSERT_GUARD			2
#define ES_NUM_GUARDS			3

extern const GuardSpec es_guards[ES_NUM_GUARDS];

/* Positions fit in the 48 bits of an in-flight lock's tag, less one. */
#define ES_MAX_POSITION		INT64CONST(140737488355327)

/* Kinds of problems, as bits. */
#define ES_PROBLEM_SHAPE		0x01	/* kind of table, relatives, rules, columns */
#define ES_PROBLEM_GUARD		0x02	/* a guard has been tampered with */
#define ES_PROBLEM_MISSING		0x04	/* a guard is missing */
#define ES_PROBLEM_CHANGE_STATE 0x08	/* a change guard is not ENABLE ALWAYS */
#define ES_PROBLEM_INSERT_STATE 0x10	/* the insert guard is not ENABLE */
#define ES_PROBLEM_ORDER		0x20	/* a trigger fires behind the insert guard */
#define ES_PROBLEM_INDEX		0x40
#define ES_PROBLEM_SEQUENCE		0x80
#define ES_PROBLEM_ANY			0xFF

/*
 * A description, copied out of the backend's cache, together with the open
 * relation.  It stays good while the table is locked.
 */
typedef struct EventTable
{
	Oid			relid;
	Relation	rel;			/* NULL in the cache */
	LOCKMODE	lockmode;		/* for its indexes */
	bool		is_event_table;
	bool		is_append_only; /* has change guards, at least one */
	bool		readable;		/* has all that readers rely on */
	bool		subscribed;		/* a logical subscription feeds it */
	bool		plain;			/* has our columns in order and no others */
	bool		simple;			/* plain; no triggers or expressions of users */
	uint64		generation;		/* another one after each invalidation */
	AttrNumber	attnum[ES_NUM_COLUMNS]; /* 0: there is none */
	Oid			insert_guard;	/* trigger function */
	Oid			sequence;
	Oid			position_index;
	Oid			version_index;	/* (stream, version) */
	Oid			event_id_index;
	Oid			category_index; /* (category(stream), position), or invalid */
	Oid			correlation_index;	/* (correlation_id, position), or invalid */
	char	   *problem;		/* the first one; NULL: none */
} EventTable;

/* What a table is opened for, and so what has to be in order. */
typedef enum EventTableUse
{
	ES_FOR_LOOKING,				/* that it is an event table */
	ES_FOR_READING,				/* SELECT, our columns and indexes */
	ES_FOR_GUARDING,			/* the guards, all of them */
	ES_FOR_APPENDING			/* INSERT and the guards */
} EventTableUse;

extern void es_event_table_init(void);
extern EventTable *es_event_table_open(Oid relid, LOCKMODE lockmode,
									   EventTableUse use);
extern EventTable *es_event_table_try_open(Oid relid, bool *busy);
pg_noreturn extern void es_unguarded(Relation rel, const char *problem);
extern void es_event_table_close(EventTable *table);
extern void es_describe_table(Relation rel, int kinds, EventTable *table);
extern int	es_owned_sequences(Oid relid, AttrNumber column, Oid *sequence);
extern char *es_shape_problem(Relation rel);
extern bool es_is_guard(const Trigger *trigger, const GuardSpec *spec);
extern bool es_is_our_function(Oid funcid, const char *symbol);
extern int64 es_sequence_last_value(Oid sequence, bool *logged);
extern int64 es_last_position(EventTable *table, Snapshot snapshot, int64 low, int64 high);
extern int64 es_check_sequence(EventTable *table);
extern void es_note_position(Oid relid, int64 position);
extern char *es_qualified_name(Relation rel);
extern bool es_row_security_applies(EventTable *table);

#endif							/* ES_EVENT_TABLE_H */
