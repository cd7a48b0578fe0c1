/*
 * arguments.h
 *	  Arguments of SQL functions, and what is wrong with them.
 */
#ifndef ES_ARGUMENTS_H
#define ES_ARGUMENTS_H

#include "compat.h"
#include "fmgr.h"
#include "utils/timestamp.h"

#define ES_MAX_STREAM_LENGTH	512
#define ES_STREAM_EXISTS		INT64CONST(-4)	/* expected_version */
#define ES_MAX_TYPE_LENGTH		255
#define ES_MAX_NAME_LENGTH		255

pg_noreturn extern void es_null_argument(const char *name);
extern Oid	es_arg_table(FunctionCallInfo fcinfo);
extern text *es_arg_stream(FunctionCallInfo fcinfo, int n);
extern int64 es_arg_int64(FunctionCallInfo fcinfo, int n, int64 otherwise);
extern bool es_arg_flag(FunctionCallInfo fcinfo, int n);
extern bool es_arg_backward(FunctionCallInfo fcinfo, int n);
extern void es_check_not_negative(const char *name, int64 value);
extern int64 es_arg_timeout(FunctionCallInfo fcinfo, int n);
extern int64 es_interval_us(const Interval *interval);
extern Interval *es_us_interval(int64 time);
extern void es_check_stream(const text *stream);
extern void es_check_type(const text *type);
extern void es_check_name(const text *name);
/* data and metadata of an event; it has to fit into one value of a batch */
#define ES_MAX_EVENT_BYTES		(200 * 1024 * 1024)

extern void es_check_size(Size bytes);
extern void es_check_schema_version(int32 schema_version);
extern void es_check_expected_version(int64 version);

#endif							/* ES_ARGUMENTS_H */
