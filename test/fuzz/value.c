/*
 * value.c
 *	  Random numbers, and random values of every type as SQL expressions.
 *
 * Mostly values that mean something, as the name of the parameter suggests: or
 * every call would end in the first check of its arguments.
 */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

const Function *called;
int			array_length = 1;

static uint64_t state;

static void text_value(PQExpBuffer buf, const char *name);
static void array_value(PQExpBuffer buf, const char *type, const char *name);
static void event_value(PQExpBuffer buf);
static void json_events(PQExpBuffer buf, int depth);
static void json_streams(PQExpBuffer buf, bool events);
static void json_value(PQExpBuffer buf, int depth);

uint64_t
seed_random(uint64_t seed)
{
	uint64_t	old = state;

	state = seed;
	return old;
}

/* splitmix64 */
uint64_t
draw(void)
{
	uint64_t	z = (state += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

int
below(int n)
{
	return draw() % n;
}

bool
chance(int percent)
{
	return below(100) < percent;
}

static const char *const types[] = {
	"text", "bigint", "integer", "jsonb", "uuid", "boolean", "timestamp with time zone", "interval",
	"regclass", "regprocedure", "regrole", "oid", "double precision", "event_store.event", "text[]",
	"jsonb[]", "uuid[]", "integer[]", "timestamp with time zone[]", "regclass[]", "bytea", "numeric",
	"internal", "trigger", "event_store.append_result", "void", "name", "record", "bigint[]"
};

static const char *const bigints[] = {
	"0", "1", "2", "3", "-1", "-4", "-5", "5", "9", "10", "100", "1000000", "2147483647", "2147483648",
	"4294967296", "140737488355327", "140737488355328", "9223372036854775807", "(-9223372036854775807 - 1)"
};
static const char *const integers[] = {
	"0", "1", "2", "3", "4", "7", "-1", "255", "256", "257", "65536", "2147483647", "(-2147483647 - 1)"
};
static const char *const uuids[] = {
	"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000005",
	"00000000-0000-4000-8000-000000000009", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
	"01900000-0000-7000-8000-00000000000a", "01900000-0000-7000-8000-00000000000b"
};
static const char *const times[] = {
	"now()", "clock_timestamp()", "now() - interval '1 second'", "'infinity'::timestamptz", "'-infinity'::timestamptz",
	"'4713-01-01 00:00:00+00 BC'::timestamptz", "'294276-12-31 23:59:59.999999+00'::timestamptz", "'2000-01-01 00:00:00+00'::timestamptz",
	"'0001-01-01 00:00:00+00 BC'::timestamptz"
};
static const char *const intervals[] = {
	"'0'", "'1 microsecond'", "'1 ms'", "'2 ms'", "'5 ms'", "'-1 s'", "'1 mon -30 days'", "'-178000000 years'"
};
static const char *const long_intervals[] = {
	"'10 s'", "'60 s'", "'61 s'", "'1 h'", "'178000000 years'", "'2562047788 hours'"
};
static const char *const event_tables[] = {
	"ev_a", "ev_a", "ev_a", "ev_b", "ev_b", "ev_policy", "ev_columns", "ev_columns", "ev_other", "ev_broken", "made_1", "made_2"
};
static const char *const other_relations[] = {
	"plain", "a_view", "a_matview", "a_sequence", "a_type", "parted", "parent", "lookalike", "unlogged", "appendonly", "model",
	"ev_a_position_seq", "ev_a_pkey", "pg_catalog.pg_class", "pg_catalog.pg_database", "information_schema.tables",
	"event_store.snapshots", "event_store.feeds", "event_store.event", "event_store.registered_projections", "event_store.feed_marks"
};
static const char *const odd_oids[] = {
	"0", "1", "-1", "4294967295", "99999999", "16384"
};
static const char *const procedures[] = {
	"fuzz.reduce(jsonb,event_store.event)", "fuzz.reduce_plpgsql(jsonb,event_store.event)", "fuzz.reduce_null(jsonb,event_store.event)",
	"fuzz.reduce_strict(jsonb,event_store.event)", "fuzz.reduce_error(jsonb,event_store.event)", "fuzz.reduce_volatile(jsonb,event_store.event)",
	"fuzz.reduce_writes(jsonb,event_store.event)", "fuzz.reduce_set(jsonb,event_store.event)", "event_store.merge(jsonb,event_store.event)",
	"fuzz.up(jsonb)", "fuzz.up_null(jsonb)", "fuzz.up_error(jsonb)", "fuzz.up_catches(jsonb)", "fuzz.up(jsonb)",
	"fuzz.handle(event_store.event)", "fuzz.handle_error(event_store.event)", "fuzz.handle_appends(event_store.event)", "fuzz.handle(event_store.event)",
	"now()", "int4pl(integer,integer)", "sum(bigint)", "row_number()", "event_store._guard_insert()", "event_store._check_ddl()",
	"event_store._fold_step(internal,event_store.event,text)", "event_store.fold(event_store.event,text)", "fuzz.mend()", "jsonb_typeof(jsonb)"
};
static const char *const roles[] = {
	"fuzz_owner", "fuzz_reader", "fuzz_nobody", "fuzz_other", "postgres", "pg_monitor", "pg_database_owner"
};
static const char *const odd_texts[] = {
	"''", "' '", "'a'", "E'\\n\\t'", "U&'\\200B'", "U&'\\+01F600'", "U&'e\\0301\\FEFF'", "'İßǅ'", "repeat('x', 255)", "repeat('x', 256)",
	"repeat('x', 512)", "repeat('x', 513)", "repeat('é', 256)", "repeat('é', 257)", "repeat('x', 9000)", "repeat('y', 300000)", "'-'", "'-1'", "'order-'",
	"'%s%n%d'", "'order-1'';--'", "'\"'", "'\\'", "'{}'", "'NaN'", "E'\\x7f\\x01'", "'$1'", "'NULL'", "repeat('-', 100)", "'pg_catalog'", "'public.ev_a'",
	"'9223372036854775808'"
};

/* What a text is likely to be, by the name of its parameter. */
static const char *const streams[] = {"order-0", "order-1", "order-2", "item-1", "lonely", "many-1", "new-1", "new-2", "new-3", "new-4", "echo-1"};
static const char *const event_types[] = {"T0", "T1", "T", "Echo", "Odd", "Skip"};
static const char *const categories[] = {"order", "item", "lonely", "many", "new"};
static const char *const directions[] = {"forward", "backward", "forward", "backward", "Forward", "sideways"};
static const char *const aggregates[] = {"merge", "fold", "plpgsql", "null", "error", "made_1", "made_2", "unknown"};
static const char *const projections[] = {"background", "by_hand", "inline", "parks", "p1", "p2", "p3", "unknown"};
static const char *const tables_to_make[] = {"made_1", "made_2", "public.made_3", "fuzz.made_4", "ev_a", "plain", "\"Made It\"", "nowhere.made", "pg_temp.made", "a.b.c.d"};
static const char *const modes[] = {"async", "inline", "manual", "manual", "sometimes"};
static const char *const policies[] = {"stop", "park", "park_stream", "explode"};
static const char *const paths[] = {"public", "fuzz, public", "", "\"", "public,,", "$user", "pg_temp", "nowhere", "event_store", "pg_catalog, pg_temp"};
static const char *const schemas[] = {"shadow", "shadow2", "public", "pg_temp", "event_store", "pg_shadow"};
static const char *const statements[] = {
	"INSERT INTO model SELECT stream, max(version) FROM events GROUP BY 1 ON CONFLICT (stream) DO UPDATE SET version = excluded.version",
	"INSERT INTO public.model SELECT stream, max(version) FROM events GROUP BY 1 ON CONFLICT (stream) DO UPDATE SET version = excluded.version",
	"SELECT 1", "SELECT 1 / (version - 2) FROM events", "", ";", "--", "nonsense", "BEGIN", "COMMIT", "TRUNCATE events", "DELETE FROM events",
	"INSERT INTO events SELECT * FROM events", "SELECT 1; SELECT 2", "DROP TABLE model", "COPY model TO STDOUT", "VACUUM", "LISTEN x", "SELECT $1",
	"SET ROLE fuzz_other", "RESET ROLE", "EXPLAIN SELECT * FROM events", "DECLARE c CURSOR FOR SELECT * FROM events", "PREPARE x AS SELECT 1",
	"DO $$ BEGIN PERFORM 1; END $$", "CREATE TEMP TABLE t AS SELECT * FROM events", "SELECT * FROM events FOR UPDATE", "SELECT e FROM events e, events f",
	"SELECT event_store.append(''public.ev_b'', ''echo-1'', ''Echo'', ''{}'') FROM events WHERE type <> ''Echo''",
	"SELECT * FROM event_store.read_all(''public.ev_a'')", "SELECT event_store.run_projection(''by_hand'')", "UPDATE model SET version = version + 1",
	"MERGE INTO model m USING (SELECT DISTINCT ON (stream) * FROM events ORDER BY stream, version DESC) e ON m.stream = e.stream WHEN MATCHED THEN UPDATE SET version = e.version WHEN NOT MATCHED THEN INSERT VALUES (e.stream, e.version)",
	"SELECT event_store.drop_projection(''p1'')", "CREATE INDEX ON model (version)", "CALL fuzz.nothing()", "NOTIFY x"
};

#define WORDS(list)	list, lengthof(list)

static const struct
{
	const char *name;
	const char *const *words;
	int			nwords;
}			meanings[] = {
	{"stream", WORDS(streams)},
	{"type", WORDS(event_types)},
	{"category", WORDS(categories)},
	{"direction", WORDS(directions)},
	{"aggregate", WORDS(aggregates)},
	{"mode", WORDS(modes)},
	{"on_error", WORDS(policies)},
	{"search_path", WORDS(paths)},
	{"shadow_schema", WORDS(schemas)},
	{"statement", WORDS(statements)},
	{"streams", WORDS(streams)},
	{"types", WORDS(event_types)},
	{"categories", WORDS(categories)},
};

/* Appends a value of a type, or once in a while of any other. */
void
value(PQExpBuffer buf, const char *type, const char *name)
{
	/* What is rarely given, and rarely the right one. */
	bool		rare = strcmp(name, "expected_version") == 0 || strncmp(name, "event_id", 8) == 0 || strcmp(name, "after_event_id") == 0;

	if (chance(2))
		type = any_of(types);
	if (chance(rare ? 50 : 3) || strcmp(type, "internal") == 0)
	{
		appendPQExpBufferStr(buf, "NULL");
		if (chance(30) && strcmp(type, "internal") != 0)
			appendPQExpBuffer(buf, "::%s", type);
		return;
	}
	if (strlen(type) > 2 && strcmp(type + strlen(type) - 2, "[]") == 0)
		array_value(buf, type, name);
	else if (strcmp(type, "text") == 0)
		text_value(buf, name);
	else if (strcmp(type, "bigint") == 0 || strcmp(type, "numeric") == 0)
		appendPQExpBuffer(buf, "%s::%s", bigints[below(chance(70) ? 8 : lengthof(bigints))], type);
	else if (strcmp(type, "integer") == 0)
		appendPQExpBuffer(buf, "%s::integer", integers[below(chance(70) ? 5 : lengthof(integers))]);
	else if (strcmp(type, "double precision") == 0)
		appendPQExpBufferStr(buf, chance(50) ? "'NaN'::float8" : "1e300::float8");
	else if (strcmp(type, "boolean") == 0)
		appendPQExpBufferStr(buf, chance(50) ? "true" : "false");
	else if (strcmp(type, "uuid") == 0)
	{
		if (chance(50))
			appendPQExpBuffer(buf, "'%s'::uuid", any_of(uuids));
		else
			appendPQExpBuffer(buf, "'%08x-0000-4000-8000-%012x'::uuid", below(1 << 30), below(1 << 30));
	}
	else if (strcmp(type, "timestamp with time zone") == 0)
		appendPQExpBufferStr(buf, any_of(times));
	else if (strcmp(type, "interval") == 0)
		appendPQExpBuffer(buf, "%s::interval", chance(96) ? any_of(intervals) : any_of(long_intervals));
	else if (strcmp(type, "regclass") == 0)
	{
		if (chance(78))
			appendPQExpBuffer(buf, "'%s'::regclass", any_of(event_tables));
		else if (chance(70))
			appendPQExpBuffer(buf, "'%s'::regclass", any_of(other_relations));
		else if (chance(30))
			appendPQExpBuffer(buf, "%s::bigint::oid::regclass", dropped_oid);
		else
			appendPQExpBuffer(buf, "'%s'::oid::regclass", any_of(odd_oids));
	}
	else if (strcmp(type, "regprocedure") == 0)
	{
		if (chance(95))
			appendPQExpBuffer(buf, "'%s'::regprocedure", any_of(procedures));
		else
			appendPQExpBuffer(buf, "'%s'::oid::regprocedure", any_of(odd_oids));
	}
	else if (strcmp(type, "regrole") == 0)
	{
		if (chance(90))
			appendPQExpBuffer(buf, "'%s'::regrole", any_of(roles));
		else
			appendPQExpBuffer(buf, "'%s'::oid::regrole", any_of(odd_oids));
	}
	else if (strcmp(type, "oid") == 0)
		appendPQExpBuffer(buf, "'%s'::oid", any_of(odd_oids));
	else if (strcmp(type, "event_store.event") == 0)
		event_value(buf);
	else if (strcmp(type, "jsonb") == 0)
	{
		int			form = below(100);

		if (form == 0)
			appendPQExpBufferStr(buf, "(repeat('[', 2000) || repeat(']', 2000))::jsonb");
		else if (form == 1)
			appendPQExpBufferStr(buf, "jsonb_build_object('big', repeat('z', 200000))");
		else if (form == 2)
			appendPQExpBuffer(buf, "fuzz.many_%s(%d)", chance(50) ? "streams" : "events", chance(10) ? 1100 : 70);
		else
		{
			appendPQExpBufferChar(buf, '\'');
			if (form < 15)
				json_value(buf, 0);
			else if (strcmp(name, "events") == 0)
				json_events(buf, 0);
			else if (strcmp(name, "appends") == 0 || strcmp(name, "checks") == 0)
				json_streams(buf, name[0] == 'a');
			else if (form < 60)
				appendPQExpBuffer(buf, "{\"k%d\": %d}", below(4), below(10));
			else
				json_value(buf, 0);
			appendPQExpBufferStr(buf, "'::jsonb");
		}
	}
	else
		appendPQExpBuffer(buf, "'1'::%s", type);
}

static void
text_value(PQExpBuffer buf, const char *name)
{
	const char *const *words = NULL;
	int			nwords = 0;

	if (strcmp(name, "name") == 0 && called != NULL)
	{
		if (strstr(called->name, "event_table"))
			words = tables_to_make, nwords = lengthof(tables_to_make);
		else if (strstr(called->name, "aggregate"))
			words = aggregates, nwords = lengthof(aggregates);
		else
			words = projections, nwords = lengthof(projections);
	}
	for (int i = 0; i < lengthof(meanings); i++)
		if (strcmp(name, meanings[i].name) == 0)
			words = meanings[i].words, nwords = meanings[i].nwords;
	if (words != NULL && chance(92))
		appendPQExpBuffer(buf, "'%s'", words[below(nwords)]);
	else
		appendPQExpBufferStr(buf, any_of(odd_texts));
}

static void
array_value(PQExpBuffer buf, const char *type, const char *name)
{
	char		element[100];
	int			n = chance(90) ? array_length : below(6);

	snprintf(element, sizeof(element), "%.*s", (int) strlen(type) - 2, type);
	if (chance(3))
	{
		appendPQExpBufferStr(buf, "array_fill(");
		value(buf, element, name);
		appendPQExpBuffer(buf, "::%s, '{%d}'%s)", element, 1 + below(300), chance(30) ? ", '{7}'" : "");
	}
	else if (chance(4))
	{
		appendPQExpBufferStr(buf, "ARRAY[[");
		value(buf, element, name);
		appendPQExpBufferStr(buf, "],[");
		value(buf, element, name);
		appendPQExpBuffer(buf, "]]::%s", type);
	}
	else
	{
		appendPQExpBufferStr(buf, "ARRAY[");
		for (int i = 0; i < n; i++)
		{
			if (i > 0)
				appendPQExpBufferStr(buf, ", ");
			value(buf, element, name);
		}
		appendPQExpBuffer(buf, "]::%s", type);
	}
}

static void
event_value(PQExpBuffer buf)
{
	static const char *const columns[][2] = {
		{"bigint", "position"}, {"text", "stream"}, {"bigint", "version"}, {"uuid", "event_id"}, {"text", "type"}, {"integer", "schema_version"},
		{"jsonb", "data"}, {"jsonb", "metadata"}, {"text", "correlation_id"}, {"text", "causation_id"},
		{"timestamp with time zone", "occurred_at"}, {"timestamp with time zone", "recorded_at"}
	};

	appendPQExpBufferStr(buf, "ROW(");
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (i > 0)
			appendPQExpBufferStr(buf, ", ");
		value(buf, columns[i][0], columns[i][1]);
	}
	appendPQExpBufferStr(buf, ")::event_store.event");
}

static const char *const json_scalars[] = {
	"null", "true", "false", "0", "-1", "1.5", "1e400", "123456789012345678901234567890", "\"\"", "\"x\"", "\"order-1\"", "\"\\ud83d\\ude00\"", "{}", "[]",
	"9223372036854775808", "2147483648", "1.0", "-4", "\"2000-01-01T00:00:00Z\"", "\"infinity\"", "\"00000000-0000-4000-8000-000000000001\""
};

static void
json_value(PQExpBuffer buf, int depth)
{
	int			form = below(10);
	int			n = below(4);

	if (form < 5 || depth > 4)
	{
		appendPQExpBufferStr(buf, any_of(json_scalars));
		return;
	}
	appendPQExpBufferChar(buf, form < 8 ? '{' : '[');
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendPQExpBufferChar(buf, ',');
		if (form < 8)
			appendPQExpBuffer(buf, "\"%s%d\":", chance(20) ? "é" : "k", below(5));
		json_value(buf, depth + 1);
	}
	appendPQExpBufferChar(buf, form < 8 ? '}' : ']');
}

/* A member of an object: of its kind mostly, sometimes anything. */
static void
json_member(PQExpBuffer buf, const char *key, const char *good)
{
	appendPQExpBuffer(buf, "\"%s\":", key);
	if (chance(95))
		appendPQExpBufferStr(buf, good);
	else
		json_value(buf, 2);
	appendPQExpBufferChar(buf, ',');
}

/* An array of events as append_json() wants it, or nearly. */
static void
json_events(PQExpBuffer buf, int depth)
{
	int			n = chance(95) ? 1 + below(3) : 0;
	bool		ids = chance(20);
	char		text[100];

	appendPQExpBufferChar(buf, '[');
	for (int i = 0; i < n; i++)
	{
		if (chance(2))
			json_value(buf, depth + 1);
		else
		{
			appendPQExpBufferChar(buf, '{');
			snprintf(text, sizeof(text), "\"%s\"", any_of(event_types));
			if (chance(98))
				json_member(buf, "type", text);
			if (ids && chance(98))
			{
				snprintf(text, sizeof(text), "\"%s\"", any_of(uuids));
				json_member(buf, "event_id", text);
			}
			if (chance(15))
				json_member(buf, "metadata", "{\"user\": \"x\"}");
			if (chance(15))
				json_member(buf, chance(50) ? "correlation_id" : "causation_id", "\"c-1\"");
			if (chance(15))
				json_member(buf, "occurred_at", "\"2000-01-01T00:00:00Z\"");
			if (chance(15))
				json_member(buf, "schema_version", chance(80) ? "2" : "0");
			if (chance(2))
				json_member(buf, chance(50) ? "version" : "Type", "1");
			appendPQExpBufferStr(buf, chance(98) ? "\"data\":" : "\"datum\":");
			json_value(buf, 3);
			appendPQExpBufferChar(buf, '}');
		}
		if (i < n - 1)
			appendPQExpBufferChar(buf, ',');
	}
	appendPQExpBufferChar(buf, ']');
}

/* An array as append_streams() wants it, as its appends or its checks. */
static void
json_streams(PQExpBuffer buf, bool events)
{
	static const char *const versions[] = {"null", "0", "1", "3", "-4", "-1", "2.5", "9223372036854775807"};
	int			n = chance(95) ? 1 + below(3) : 0;
	char		text[100];

	appendPQExpBufferChar(buf, '[');
	for (int i = 0; i < n; i++)
	{
		appendPQExpBufferChar(buf, '{');
		if (events)
		{
			appendPQExpBufferStr(buf, "\"events\":");
			json_events(buf, 2);
			appendPQExpBufferChar(buf, ',');
		}
		if (chance(events ? 30 : 98))
			json_member(buf, "expected_version", any_of(versions));
		appendPQExpBufferStr(buf, chance(98) ? "\"stream\":" : "\"Stream\":");
		snprintf(text, sizeof(text), "\"%s\"", any_of(streams));
		appendPQExpBufferStr(buf, text);
		appendPQExpBufferChar(buf, '}');
		if (i < n - 1)
			appendPQExpBufferChar(buf, ',');
	}
	appendPQExpBufferChar(buf, ']');
}

/* A line for COPY ... (stream, type, data), or nearly. */
void
copy_line(PQExpBuffer buf)
{
	if (chance(4))
	{
		appendPQExpBufferStr(buf, "nonsense\n");
		return;
	}
	appendPQExpBuffer(buf, "%s\t%s\t", any_of(streams), chance(95) ? any_of(event_types) : "\\N");
	json_value(buf, 2);
	appendPQExpBufferChar(buf, '\n');
}
