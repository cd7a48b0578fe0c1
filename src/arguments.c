/*
 * arguments.c
 *	  Arguments of SQL functions, and what is wrong with them.
 *
 * One function per rule, so that each message exists once.
 */
#include "postgres.h"

#include "arguments.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Whoever waits keeps a snapshot. */
#define MAX_TIMEOUT		(60 * USECS_PER_SEC)

static void check_length(const text *value, const char *what, int max);

void
es_null_argument(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", name)));
}

/* The first argument of nearly every function. */
Oid
es_arg_table(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		es_null_argument("event_table");
	return PG_GETARG_OID(0);
}

text *
es_arg_stream(FunctionCallInfo fcinfo, int n)
{
	text	   *stream = PG_ARGISNULL(n) ? NULL : PG_GETARG_TEXT_PP(n);

	es_check_stream(stream);
	return stream;
}

int64
es_arg_int64(FunctionCallInfo fcinfo, int n, int64 otherwise)
{
	return PG_ARGISNULL(n) ? otherwise : PG_GETARG_INT64(n);
}

/* NULL means the default, which is false. */
bool
es_arg_flag(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

bool
es_arg_backward(FunctionCallInfo fcinfo, int n)
{
	char	   *direction;

	if (PG_ARGISNULL(n))
		return false;
	direction = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(direction, "forward") == 0)
		return false;
	if (strcmp(direction, "backward") == 0)
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("direction must be forward or backward, not \"%s\"", direction)));
}

void
es_check_not_negative(const char *name, int64 value)
{
	if (value < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative, but is " INT64_FORMAT, name, value)));
}

/* How long to wait at most, in microseconds. */
int64
es_arg_timeout(FunctionCallInfo fcinfo, int n)
{
	int64		timeout;

	if (PG_ARGISNULL(n))
		es_null_argument("timeout");
	timeout = es_interval_us(PG_GETARG_INTERVAL_P(n));
	if (timeout < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative: %s",
						DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(n))))));
	return Min(timeout, MAX_TIMEOUT);
}

/* In microseconds, as far as these go. */
int64
es_interval_us(const Interval *interval)
{
	double		time = ((double) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY + interval->time;

	return time < 0 ? -1 : (int64) Min(time, (double) (PG_INT64_MAX / 2));
}

Interval *
es_us_interval(int64 time)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = time;
	return interval;
}

void
es_check_stream(const text *stream)
{
	check_length(stream, "stream", ES_MAX_STREAM_LENGTH);
}

void
es_check_type(const text *type)
{
	check_length(type, "type", ES_MAX_TYPE_LENGTH);
}

/* The name of an object of ours. */
void
es_check_name(const text *name)
{
	check_length(name, "name", ES_MAX_NAME_LENGTH);
}

static void
check_length(const text *value, const char *what, int max)
{
	int			length;

	if (value == NULL)
		es_null_argument(what);
	length = VARSIZE_ANY_EXHDR(value);
	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (length > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long: %d bytes", what, length),
				 errdetail("At most %d bytes are allowed.", max)));
}

void
es_check_size(Size bytes)
{
	if (bytes > ES_MAX_EVENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("event is too large: %zu bytes of data and metadata", bytes),
				 errdetail("At most %d bytes are allowed.", ES_MAX_EVENT_BYTES),
				 errhint("Store large objects elsewhere, and refer to them in the event.")));
}

void
es_check_schema_version(int32 schema_version)
{
	if (schema_version < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schema_version must be at least 1, not %d", schema_version)));
}

void
es_check_expected_version(int64 version)
{
	if (version >= 0 || version == ES_STREAM_EXISTS)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid expected_version " INT64_FORMAT, version),
			 errdetail("It is a version, 0 for a stream that must not exist, event_store.stream_exists() for one that must, or NULL for any."),
			 version == -1 ? errhint("For \"the stream must not exist\" pass 0, for \"any version\" pass NULL.") : 0));
}
