/*
 * result.h
 *	  Results of SQL functions.
 */
#ifndef ES_RESULT_H
#define ES_RESULT_H

#include "append_steps.h"
#include "fmgr.h"

extern Datum es_append_result(FunctionCallInfo fcinfo, StreamAppend *append);
extern void es_append_values(StreamAppend *append, Datum *values);

#define ES_APPEND_RESULT_COLUMNS 6

#endif							/* ES_RESULT_H */
