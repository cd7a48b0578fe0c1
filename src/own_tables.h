/*
 * own_tables.h
 *	  The extension's own tables.
 */
#ifndef ES_OWN_TABLES_H
#define ES_OWN_TABLES_H

#include "storage/lockdefs.h"
#include "utils/relcache.h"

/* The user to be again after acting as another. */
typedef struct SavedUser
{
	Oid			userid;
	int			context;
} SavedUser;

extern Oid	es_own_table(const char *name, bool missing_ok);
extern Relation es_try_open_own_table(const char *name, LOCKMODE lockmode);
extern void es_become_owner_of(Oid table, SavedUser *saved);
extern void es_become(Oid role, int context, SavedUser *saved);
extern void es_become_again(SavedUser *saved);

#endif							/* ES_OWN_TABLES_H */
