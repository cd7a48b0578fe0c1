/*
 * test_alloc.h
 *	  Lets the n-th allocation of this library fail, in a build with TEST_HOOKS=1.
 *
 * Included before each of our files by the compiler's command line.  So all that
 * our own code allocates goes by here, and nothing that the server does.
 */
#ifndef ES_TEST_ALLOC_H
#define ES_TEST_ALLOC_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* Raises an error if it is the turn of this one. */
extern void es_test_alloc(void);

#define palloc(size)						(es_test_alloc(), (palloc) (size))
#define palloc0(size)						(es_test_alloc(), (palloc0) (size))
#define palloc_extended(size, flags)		(es_test_alloc(), (palloc_extended) (size, flags))
#define repalloc(pointer, size)				(es_test_alloc(), (repalloc) (pointer, size))
#define pstrdup(string)						(es_test_alloc(), (pstrdup) (string))
#define psprintf(...)						(es_test_alloc(), (psprintf) (__VA_ARGS__))
#define MemoryContextAlloc(context, size)	(es_test_alloc(), (MemoryContextAlloc) (context, size))
#define MemoryContextAllocZero(context, size)	(es_test_alloc(), (MemoryContextAllocZero) (context, size))
#define MemoryContextAllocHuge(context, size)	(es_test_alloc(), (MemoryContextAllocHuge) (context, size))
#define MemoryContextStrdup(context, string)	(es_test_alloc(), (MemoryContextStrdup) (context, string))
/* These allocate, too, inside the server. */
#define lappend(list, datum)				(es_test_alloc(), (lappend) (list, datum))
#define hash_search(table, key, action, found)	(es_test_alloc(), (hash_search) (table, key, action, found))

#endif							/* ES_TEST_ALLOC_H */
