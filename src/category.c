/*
 * category.c
 *	  The category of a stream: what stands before the first '-'.
 *
 * Indexes depend on it, so it can never change.  A byte '-' is never part of a
 * multibyte character in a server encoding.
 */
#include "postgres.h"

#include "category.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(event_store_category);

Datum
event_store_category(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(es_category(PG_GETARG_TEXT_PP(0)));
}

text *
es_category(const text *stream)
{
	const char *name = VARDATA_ANY(stream);
	int			length = VARSIZE_ANY_EXHDR(stream);
	const char *dash = memchr(name, '-', length);

	return cstring_to_text_with_len(name, dash ? dash - name : length);
}
