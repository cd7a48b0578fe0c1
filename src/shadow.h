/*
 * shadow.h
 *	  Shadows of the tables of a read model.
 *
 * All of it acts as the current user, who should be the projection's owner, and
 * relies on es_check_read_model() having passed in the same transaction.
 * A schema of NULL stands for temporary tables.
 */
#ifndef ES_SHADOW_H
#define ES_SHADOW_H

#include "nodes/pg_list.h"
#include "utils/array.h"

/* What es_replace_contents() has done to a table. */
typedef struct Replacement
{
	Oid			table;
	int64		deleted;
	int64		updated;
	int64		inserted;
} Replacement;

/* Tables that are not to be written; lives in the context of its making. */
typedef struct Watch Watch;

extern List *es_read_model(ArrayType *tables);
extern void es_check_read_model(ArrayType *tables, Oid owner);
extern void es_make_shadows(ArrayType *tables, const char *schema);
extern void es_drop_shadows(ArrayType *tables, const char *schema);
extern Oid	es_shadow_of(Oid live, const char *schema);
extern Watch *es_begin_watch(ArrayType *tables);
extern Oid	es_end_watch(Watch *watch);
extern bool es_tables_differ(Oid live, Oid shadow, const char *const labels[2], char **difference,
							 uint64 *rows_live, uint64 *rows_shadow);
extern char *es_table_digest(Oid table);
extern List *es_replace_contents(ArrayType *tables, const char *schema);

#endif							/* ES_SHADOW_H */
