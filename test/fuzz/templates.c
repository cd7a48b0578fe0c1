/*
 * templates.c
 *	  What is done: statements with gaps, as lists that are easy to add to.
 *
 *	  %f  a call of a random function		%q  a random query
 *	  %t  an event table, mostly			%=  the same one again, unqualified
 *	  %r  any relation, as a regclass		%v  a view or table of the extension
 *	  %s  a stream	%y  an event type		%j  a jsonb
 *	  %n  a bigint	%i  an integer			%u  a uuid		%z  a timestamptz
 *	  %x  a text	%e  a composite event	%c  a column	%g  a trigger
 *	  %d  a digit	%a  the name of an aggregate
 *
 * Nothing here ends other sessions, starts programs, or reads files.
 */
#include "fuzz.h"

#include <string.h>

#define MAX_LAST_CALLED	20

int			last_called[MAX_LAST_CALLED];
int			num_last_called;

static const char *last_table = "ev_a";

/* How a function is called. */
static const char *const queries[] = {
	"SELECT * FROM %f", "SELECT * FROM %f", "SELECT * FROM %f", "SELECT %f", "SELECT %f",
	"SELECT %f FROM generate_series(1, 3)",
	"SELECT * FROM generate_series(1, 2) g, LATERAL %f x",
	"SELECT * FROM %f LIMIT 1", "SELECT * FROM %f OFFSET 1 LIMIT 1",
	"SELECT (%f).*",
	"SELECT count(*) FROM %f WITH ORDINALITY x",
	"SELECT * FROM ROWS FROM (%f, %f) x",
	"SELECT 1 WHERE EXISTS (SELECT FROM %f)",
	"SELECT coalesce((%f)::text, 'x')",
	"WITH c AS MATERIALIZED (SELECT * FROM %f x) SELECT * FROM c a, c b",
	"VALUES (%f), (%f)",
	"SELECT x, count(*) FROM %f x GROUP BY x ORDER BY 1",
	"SELECT CASE WHEN random() < 2 THEN %f END",
	"SELECT * FROM %t WHERE (%f) IS NOT NULL LIMIT 3",
	"SELECT event_store.fold(e, %a ORDER BY e.version) FROM %f e",
	"SELECT event_store.fold(e, %a) FROM event_store.read_all(%r) e",
	"SELECT e.stream, event_store.fold(e, %a ORDER BY e.position DESC) FILTER (WHERE e.version > 1) FROM event_store.read_all(%r, raw => true) e GROUP BY 1",
	"SELECT event_store.fold(e, %a) OVER (PARTITION BY e.stream ORDER BY e.version ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM event_store.read_all(%r) e",
	"SELECT event_store.fold(%e, %a) FROM generate_series(1, 3)",
	"SELECT event_store.fold(DISTINCT e, e.type) OVER () FROM event_store.read_stream('ev_a', %s) e",
	"SELECT event_store.fold(NULL, %a), event_store.fold(e, NULL) FROM event_store.read_all('ev_a') e",
	"SELECT event_store.fold(e::text::event_store.event, %a) FROM event_store.read_all('ev_b') e",
	"SELECT * FROM %v", "SELECT * FROM %v", "SELECT * FROM %v WHERE event_table = %r", "SELECT count(*) FROM %v, %v",
	"SELECT * FROM %t ORDER BY position", "SELECT * FROM %t WHERE stream = %s AND version = %n", "SELECT * FROM %t WHERE event_id = %u",
	"SELECT event_store.category(stream), count(*) FROM %t GROUP BY 1", "SELECT * FROM %t TABLESAMPLE BERNOULLI (50)",
	"SELECT * FROM %t WHERE recorded_at <= %z", "SELECT * FROM %t WHERE event_store.category(stream) = 'order' ORDER BY position",
};

/* Other statements with calls in them. */
static const char *const calls[] = {
	"EXPLAIN (ANALYZE, VERBOSE, BUFFERS) %q",
	"COPY (%q) TO STDOUT",
	"CREATE TEMP TABLE IF NOT EXISTS result AS %q",
	"INSERT INTO plain SELECT 1, to_jsonb(x) FROM %f x ON CONFLICT (id) DO NOTHING",
	/* Internal errors must be seen. */
	"DO $f$ BEGIN PERFORM * FROM %f; EXCEPTION WHEN internal_error OR data_corrupted OR index_corrupted THEN RAISE; WHEN OTHERS THEN NULL; END $f$",
	"DO $f$ BEGIN FOR i IN 1 .. 3 LOOP BEGIN PERFORM * FROM %f; PERFORM 1 / (i - 2); EXCEPTION WHEN internal_error THEN RAISE; WHEN OTHERS THEN NULL; END; END LOOP; END $f$",
	"DO $f$ BEGIN PERFORM * FROM %f; COMMIT; PERFORM * FROM %f; ROLLBACK; END $f$",
	"DO $f$ DECLARE r record; BEGIN FOR r IN SELECT * FROM %f LOOP PERFORM * FROM %f; EXIT; END LOOP; END $f$",
	"%q; %q", "SELECT pg_typeof(x) FROM %f x",
};

/* Reading and writing event tables without functions. */
static const char *const writes[] = {
	"INSERT INTO %t (stream, type, data) VALUES (%s, %y, %j)",
	"INSERT INTO %t (stream, type, data) VALUES (%s, %y, %j)",
	"INSERT INTO %t (stream, type, data) VALUES (%s, %y, %j), (%s, %y, %j), (%s, %y, %j)",
	"INSERT INTO %t (stream, type, data, event_id) VALUES (%s, %y, %j, %u)",
	"INSERT INTO %t (stream, version, type, data) VALUES (%s, %n, %y, %j)",
	"INSERT INTO %t (position, stream, version, type, data) VALUES (%n, %s, %n, %y, %j)",
	"INSERT INTO %t (stream, type, data, recorded_at, occurred_at) VALUES (%s, %y, %j, %z, %z) RETURNING *",
	"INSERT INTO %t (stream, type, data, event_id) VALUES (%s, %y, %j, %u) ON CONFLICT DO NOTHING",
	"INSERT INTO %t (stream, type, data, event_id) VALUES (%s, %y, %j, %u) ON CONFLICT (event_id) DO UPDATE SET data = excluded.data",
	"INSERT INTO %t (stream, type, data, schema_version) SELECT 'new-' || i % 5, %y, to_jsonb(i), %i FROM generate_series(1, 20) i",
	"INSERT INTO %t SELECT * FROM %=", "INSERT INTO %t DEFAULT VALUES", "INSERT INTO %t VALUES (%e)", "INSERT INTO %t SELECT (%e).*",
	"INSERT INTO ev_columns (stream, type, data, small, ref) VALUES (%s, %y, %j, %x, %n)",
	"INSERT INTO ev_columns (stream, type, data) VALUES (%s, %y, '{\"unique\": \"1\"}')",
	"UPDATE %t SET %c = NULL", "UPDATE %t SET data = %j WHERE position = 1", "UPDATE %t SET data = data WHERE false", "UPDATE ONLY %t SET version = version + 1 RETURNING *",
	"DELETE FROM %t", "DELETE FROM %t WHERE false", "DELETE FROM %t USING plain WHERE stream = %s",
	"TRUNCATE %t", "TRUNCATE %t, plain CASCADE", "TRUNCATE %t RESTART IDENTITY",
	"MERGE INTO %t USING (VALUES (1)) v (x) ON position = x WHEN MATCHED THEN UPDATE SET data = %j",
	"MERGE INTO %t USING (VALUES (1)) v (x) ON position = x WHEN MATCHED THEN DELETE",
	"MERGE INTO %t USING (VALUES (-1)) v (x) ON position = x WHEN NOT MATCHED THEN INSERT (stream, type, data) VALUES (%s, %y, %j)",
	"WITH d AS (DELETE FROM %t RETURNING *) INSERT INTO %= SELECT * FROM d",
	"WITH i AS (INSERT INTO %t (stream, type, data) VALUES (%s, %y, %j) RETURNING *) SELECT *, %f FROM i",
	"SELECT * FROM %t FOR UPDATE", "SELECT * FROM %t FOR KEY SHARE SKIP LOCKED", "LOCK TABLE %t IN SHARE ROW EXCLUSIVE MODE NOWAIT",
	"COPY %t (stream, type, data) FROM STDIN", "COPY %t (stream, type, data) FROM STDIN", "COPY %t FROM STDIN", "COPY %t (stream, type, data) FROM STDIN (FORMAT csv, DELIMITER E'\\t')",
	"COPY %t (stream, type, data) FROM STDIN (FREEZE)", "COPY %t FROM STDIN (FORMAT binary)", "COPY %t TO STDOUT", "COPY %t TO STDOUT (FORMAT binary)",
	"LISTEN x", "UNLISTEN *", "NOTIFY x", "SELECT * FROM %=_position_seq",
	"INSERT INTO event_store.snapshots SELECT * FROM event_store.snapshots", "UPDATE event_store.projection_checkpoints SET position = position WHERE false", "DELETE FROM event_store.projection_parked WHERE false",
	"INSERT INTO event_store.snapshots (event_table, stream, aggregate, schema_version, version, state) VALUES (%r, %s, %a, %i, %n, %j)",
};

/* DDL that may stay. */
static const char *const ddl[] = {
	"ALTER TABLE %t ADD COLUMN extra%d int", "ALTER TABLE %t ADD COLUMN extra%d int DEFAULT random()", "ALTER TABLE %t DROP COLUMN extra%d", "ALTER TABLE %t DROP COLUMN %c",
	"ALTER TABLE %t ALTER COLUMN %c TYPE bigint", "ALTER TABLE %t ALTER COLUMN %c TYPE varchar(10)", "ALTER TABLE %t ALTER COLUMN stream TYPE text USING 'x'",
	"ALTER TABLE %t ALTER COLUMN %c SET NOT NULL", "ALTER TABLE %t ALTER COLUMN %c DROP NOT NULL", "ALTER TABLE %t ALTER COLUMN %c SET DEFAULT NULL",
	"ALTER TABLE %t ALTER COLUMN %c DROP DEFAULT", "ALTER TABLE %t ALTER COLUMN %c SET STATISTICS 10", "ALTER TABLE %t ALTER COLUMN %c SET STORAGE EXTERNAL",
	"ALTER TABLE %t ALTER COLUMN %c ADD GENERATED ALWAYS AS IDENTITY", "ALTER TABLE %t RENAME COLUMN %c TO renamed",
	"ALTER TABLE %t DISABLE TRIGGER ALL", "ALTER TABLE %t DISABLE TRIGGER %g", "ALTER TABLE %t ENABLE TRIGGER %g", "ALTER TABLE %t ENABLE REPLICA TRIGGER %g",
	"ALTER TABLE %t ENABLE ALWAYS TRIGGER %g", "DROP TRIGGER %g ON %t", "ALTER TRIGGER %g ON %t RENAME TO zz",
	"ALTER TABLE %t INHERIT parent", "ALTER TABLE parted ATTACH PARTITION %t DEFAULT", "CREATE TABLE made_kid () INHERITS (%t)", "CREATE TABLE made_like (LIKE %t INCLUDING ALL)",
	"CREATE RULE r AS ON DELETE TO %t DO INSTEAD NOTHING", "CREATE RULE r AS ON INSERT TO %t DO ALSO SELECT 1",
	"ALTER TABLE %t SET UNLOGGED", "ALTER TABLE %t REPLICA IDENTITY FULL", "ALTER TABLE %t ENABLE ROW LEVEL SECURITY", "ALTER TABLE %t DISABLE ROW LEVEL SECURITY",
	"CREATE INDEX made_index%d ON %t (%c)", "CREATE UNIQUE INDEX ON %t (%c)", "DROP INDEX IF EXISTS made_index%d", "ALTER TABLE %t DROP CONSTRAINT %=_pkey", "REINDEX TABLE %t",
	"ANALYZE %t", "COMMENT ON TABLE %t IS 'x'", "GRANT INSERT ON %t TO fuzz_reader", "REVOKE ALL ON %t FROM fuzz_reader", "GRANT SELECT ON %t TO fuzz_reader",
	"ALTER SEQUENCE %=_position_seq CACHE 32", "ALTER SEQUENCE %=_position_seq INCREMENT -1", "ALTER SEQUENCE %=_position_seq CYCLE", "ALTER SEQUENCE %=_position_seq OWNED BY NONE",
	"ALTER SEQUENCE %=_position_seq RESTART", "ALTER SEQUENCE %=_position_seq RESTART WITH %d", "SELECT event_store.guard(%r)", "ALTER TABLE %t ADD CHECK (version > 0)",
	"ALTER TABLE %t ADD CHECK (stream <> 'new-4') NOT VALID", "CREATE STATISTICS ON stream, type FROM %t", "ALTER EXTENSION event_store UPDATE",
	"CREATE TRIGGER zzz BEFORE INSERT ON %t FOR EACH ROW EXECUTE FUNCTION fuzz.set_version()", "DROP TRIGGER IF EXISTS zzz ON %t",
	"ALTER TABLE %t SET (fillfactor = 50)", "ALTER TABLE %t ALTER COLUMN data SET COMPRESSION lz4",
};

/*
 * DDL that is always taken back, so that there is something left to play with.  The
 * extension's own tables are locked: it changes rows there as the server does in
 * catalogs, so who changes them by hand, side by side, is to blame himself.
 */
static const char *const transient_ddl[] = {
	"DROP TABLE %t", "DROP TABLE %t CASCADE", "ALTER TABLE %t RENAME TO made_renamed", "ALTER TABLE %t SET SCHEMA fuzz", "ALTER TABLE %t OWNER TO fuzz_nobody", "DROP SEQUENCE %=_position_seq CASCADE",
	"DROP EXTENSION event_store", "DROP EXTENSION event_store CASCADE", "DROP SCHEMA event_store CASCADE", "DROP FUNCTION event_store._guard_insert() CASCADE", "DROP OWNED BY fuzz_owner CASCADE",
	"ALTER EXTENSION event_store DROP FUNCTION event_store.category(text)", "ALTER EXTENSION event_store ADD TABLE plain",
	"ALTER FUNCTION fuzz.up(jsonb) RENAME TO up2", "DROP FUNCTION fuzz.reduce(jsonb, event_store.event)", "ALTER TYPE event_store.event ADD ATTRIBUTE more int", "DROP TABLE model",
	"ALTER TABLE event_store.snapshots ADD COLUMN more int", "DROP TABLE event_store.feed_marks CASCADE", "TRUNCATE event_store.projection_checkpoints", "DROP EVENT TRIGGER IF EXISTS nothing",
	"LOCK TABLE event_store.registered_projections IN EXCLUSIVE MODE; DELETE FROM event_store.registered_projections WHERE name = 'by_hand'", "LOCK TABLE event_store.registered_projections IN EXCLUSIVE MODE; UPDATE event_store.registered_projections SET event_table = %r", "LOCK TABLE event_store.projection_checkpoints IN EXCLUSIVE MODE; DELETE FROM event_store.projection_checkpoints",
	"INSERT INTO event_store.aggregates VALUES ('made_1', 'postgres', %x, %j, 1, 1)", "INSERT INTO event_store.registered_upcasters VALUES (%r, %y, 1, %x)", "LOCK TABLE event_store.registered_projections IN EXCLUSIVE MODE; UPDATE event_store.registered_projections SET statement = %x WHERE statement IS NOT NULL",
	"LOCK TABLE event_store.registered_projections IN EXCLUSIVE MODE; UPDATE event_store.registered_projections SET owner = 12345", "LOCK TABLE event_store.aggregates IN EXCLUSIVE MODE; UPDATE event_store.aggregates SET reducer = 'nothing'", "LOCK TABLE event_store.aggregates IN EXCLUSIVE MODE; UPDATE event_store.aggregates SET initial = %j",
	"INSERT INTO event_store.registered_event_types VALUES (%r, %y, %x, %x, %j)", "ALTER ROLE fuzz_reader RENAME TO fuzz_renamed", "ALTER TABLE plain RENAME TO made_plain", "SET session_replication_role = replica",
	"VACUUM %t", "CLUSTER %t USING %=_pkey", "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = '%t'::regclass", "ALTER SCHEMA event_store RENAME TO other_store",
};

static const char *const settings[] = {
	"SET event_store.notify = 'off'", "SET event_store.notify = 'transaction'", "SET event_store.sync_commit = off", "SET enable_seqscan = off", "SET enable_indexscan = off",
	"SET plan_cache_mode = force_generic_plan", "SET force_parallel_mode = regress", "SET force_parallel_mode = on", "SET search_path = ''", "SET search_path = pg_temp, fuzz, public", "SET client_encoding = 'LATIN1'",
	"SET IntervalStyle = 'iso_8601'", "SET DateStyle = 'German'", "SET TimeZone = 'Pacific/Apia'", "SET work_mem = '64kB'", "SET row_security = off", "SET synchronous_commit = off", "SET default_table_access_method = 'heap'",
	"SET role = fuzz_reader", "SET role = fuzz_owner", "SET default_transaction_read_only = on", "SET default_transaction_isolation = 'serializable'", "SET transform_null_equals = on", "SET bytea_output = 'escape'",
	"SET check_function_bodies = off", "SET standard_conforming_strings = off", "SET xmloption = document", "SET extra_float_digits = -15", "SET temp_buffers = '1MB'", "SET jit_above_cost = 0", "SET debug_print_plan = off",
};

static const char *const columns[] = {
	"position", "stream", "version", "event_id", "type", "schema_version", "data", "metadata", "correlation_id", "causation_id", "occurred_at", "recorded_at", "nothing", "ctid"
};
static const char *const tables[] = {
	"ev_a", "ev_a", "ev_a", "ev_b", "ev_b", "ev_policy", "ev_columns", "ev_other", "ev_broken", "appendonly", "plain", "made_1", "a_view", "parted"
};
static const char *const triggers[] = {
	"ALL", "USER", "event_store_append_only", "event_store_append_only_row", "zzz_event_store_append", "before_row", "zzz"
};
static const char *const events_to_trigger[] = {
	"BEFORE INSERT", "AFTER INSERT", "BEFORE UPDATE", "AFTER DELETE", "BEFORE TRUNCATE", "INSTEAD OF INSERT", "AFTER INSERT OR UPDATE OR DELETE", "BEFORE INSERT OR UPDATE OR DELETE"
};

static void
expand_value(PQExpBuffer buf, const char *type, const char *name)
{
	called = NULL;
	value(buf, type, name);
}

void
expand(PQExpBuffer buf, const char *template)
{
	for (const char *p = template; *p != '\0'; p++)
	{
		if (*p != '%' || p[1] == ' ')	/* an operator */
		{
			appendPQExpBufferChar(buf, *p);
			continue;
		}
		switch (*++p)
		{
			case 'f':
				{
					const Function *function = random_function();

					appendPQExpBuffer(buf, "%s(", function->name);
					arguments(buf, function);
					appendPQExpBufferChar(buf, ')');
					break;
				}
			case 'q':
				expand(buf, random_query());
				break;
			case 't':
				last_table = any_of(tables);
				appendPQExpBufferStr(buf, last_table);
				break;
			case '=':
				appendPQExpBufferStr(buf, last_table);
				break;
			case 'v':
				appendPQExpBufferStr(buf, views[below(num_views)]);
				break;
			case 'c':
				appendPQExpBufferStr(buf, any_of(columns));
				break;
			case 'g':
				appendPQExpBufferStr(buf, any_of(triggers));
				break;
			case 'd':
				appendPQExpBuffer(buf, "%d", below(4));
				break;
			case 'r':
				expand_value(buf, "regclass", "event_table");
				break;
			case 's':
				expand_value(buf, "text", "stream");
				break;
			case 'y':
				expand_value(buf, "text", "type");
				break;
			case 'a':
				expand_value(buf, "text", "aggregate");
				break;
			case 'x':
				expand_value(buf, "text", "");
				break;
			case 'j':
				expand_value(buf, "jsonb", "data");
				break;
			case 'n':
				expand_value(buf, "bigint", "");
				break;
			case 'i':
				expand_value(buf, "integer", "");
				break;
			case 'u':
				expand_value(buf, "uuid", "event_id");
				break;
			case 'z':
				expand_value(buf, "timestamp with time zone", "");
				break;
			case 'e':
				expand_value(buf, "event_store.event", "event");
				break;
			default:
				fatal("no gap is named %%%c: %s", *p, template);
		}
	}
}

/*
 * Notes that it has been picked, too.  Trigger functions have their own place; what
 * drops things is rarer, or there would be little left; what appends is more frequent.
 */
const Function *
random_function(void)
{
	bool		append = chance(15);
	int			i;

	do
		i = below(num_functions);
	while ((append && strstr(functions[i].name, ".append") == NULL) ||
		   ((functions[i].trigger || functions[i].event_trigger) && chance(90)) ||
		   (strstr(functions[i].name, ".drop_") != NULL && chance(40)));
	if (num_last_called < MAX_LAST_CALLED)
		last_called[num_last_called++] = i;
	return &functions[i];
}

/*
 * By position or by name; most of the arguments that have no default, and some of
 * the others.
 */
void
arguments(PQExpBuffer buf, const Function *function)
{
	int			required = function->nargs - function->ndefaults;
	bool		named = chance(50) && function->nargs > 0 && function->names[0][0] != '\0';
	int			count = chance(2) ? below(function->nargs + 2) : required + below(function->ndefaults + 1);
	const char *separator = "";

	array_length = 1 + below(3);
	for (int i = 0; i < function->nargs; i++)
	{
		/* Or it would wait. */
		bool		timeout = strcmp(function->names[i], "timeout") == 0;

		if (named ? !chance(i < required ? 98 : timeout ? 97 : 35) : i >= count && !timeout)
			continue;
		appendPQExpBufferStr(buf, separator);
		if (named)
			appendPQExpBuffer(buf, "\"%s\" => ", function->names[i]);
		called = function;
		value(buf, function->types[i], function->names[i]);
		separator = ", ";
	}
	if (!named && count > function->nargs)
		appendPQExpBuffer(buf, "%s1", separator);
}

const char *
random_query(void)
{
	return any_of(queries);
}

const char *
random_setting(void)
{
	return any_of(settings);
}

void
random_statement(PQExpBuffer buf)
{
	int			form = below(100);

	if (form < 60)
		expand(buf, any_of(queries));
	else if (form < 75)
		expand(buf, any_of(calls));
	else
		expand(buf, any_of(writes));
}

void
random_ddl(PQExpBuffer buf, bool *roll_back)
{
	bool		transient = chance(40);

	expand(buf, transient ? any_of(transient_ddl) : any_of(ddl));
	*roll_back = transient || chance(60);
}

/* A trigger function used as one, rightly or wrongly: a whole transaction. */
const char *
trigger_template(const Function *function)
{
	static PQExpBufferData template;
	static const char *const commands[] = {
		"INSERT INTO %= VALUES (1)", "INSERT INTO %= (stream, type, data) VALUES (%s, %y, %j)", "UPDATE %= SET %c = NULL", "DELETE FROM %=", "TRUNCATE %="
	};

	if (template.data == NULL)
		initPQExpBuffer(&template);
	resetPQExpBuffer(&template);
	if (function->event_trigger == chance(90))
	{
		static const char *const events[] = {"ddl_command_start", "ddl_command_end", "sql_drop", "table_rewrite"};

		appendPQExpBuffer(&template, "CREATE EVENT TRIGGER z ON %s EXECUTE FUNCTION %s(); ", any_of(events), function->name);
		appendPQExpBufferStr(&template, any_of(ddl));
	}
	else
	{
		appendPQExpBuffer(&template, "CREATE TRIGGER zz %s ON %%t FOR EACH %s EXECUTE FUNCTION %s(%s); ", any_of(events_to_trigger),
						  chance(70) ? "ROW" : "STATEMENT", function->name, chance(50) ? "" : chance(50) ? "'inline'" : "'x', 'y'");
		appendPQExpBufferStr(&template, any_of(commands));
	}
	return template.data;
}
