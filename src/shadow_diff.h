/*
 * shadow_diff.h
 *	  A table and its shadow, between shadow_diff.c and shadow_replace.c.
 */
#ifndef ES_SHADOW_DIFF_H
#define ES_SHADOW_DIFF_H

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

/* In SQL the live table is called a, its shadow b. */
typedef struct Pair
{
	Relation	live;
	Relation	shadow;
	char	   *live_name;		/* qualified and quoted */
	char	   *shadow_name;
	List	   *key;			/* column numbers of live; NIL: match whole rows */
	char	   *key_clause;
} Pair;

typedef enum ColumnUse
{
	ES_COMPARED,
	ES_INSERTED,
	ES_UPDATED
} ColumnUse;

extern void es_open_pair(Pair *pair, Oid live, Oid shadow,
						 LOCKMODE live_lock, LOCKMODE shadow_lock);
extern void es_close_pair(Pair *pair);
extern char *es_pair_columns(Pair *pair, ColumnUse use, const char *alias);
extern char *es_pair_differences(Pair *pair);
extern void es_pair_execute(const char *sql, int nargs, Oid *types, Datum *values);

#endif							/* ES_SHADOW_DIFF_H */
