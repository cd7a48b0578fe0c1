/*
 * scenarios.c
 *	  What the sessions do, and which mistakes must show.
 *
 * A scenario's full form stops at all points that it comes to or at those that
 * it names; the short form at fewer.  The number of schedules grows with the
 * product of what each session passes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedules.h"

/* The points that matter to others: before and after each lock, each change. */
#define WRITER		"after_stream_lock,before_in_flight_lock,after_in_flight_lock,after_nextval,after_insert,before_release"
#define READER		"after_sequence,after_mark"
#define ALL			WRITER "," READER
#define FLIGHT		"before_in_flight_lock,after_nextval," READER
#define RELEASE		"after_nextval,before_release," READER
#define WAITER		"waiter_before_list,waiter_on_list"

const char *const worker_points = "worker_after_flag,after_mark,worker_after_look";

const Scenario scenarios[] = {
	/* The worker, who may never be told twice.  First, since it takes longest. */
	{"worker", "append a; append a", "after_nextval,before_release,before_wake", "=", NULL, NULL, true},
	{"worker_abort", "begin; append a; rollback | append b", "after_nextval,before_release,before_wake", "before_release", NULL, NULL, true},
	{"worker_two", "append a | append b", "after_nextval,before_release,before_wake", "after_nextval,before_release", NULL, NULL, true},
	{"worker_wait", "append a | wait", "after_nextval,before_release,before_wake," WAITER, "before_release,before_wake," WAITER, NULL, NULL, true},
	{"worker_wait_two", "append a | append b | wait", WAITER, NULL, NULL, NULL, true},

	/* Two who write. */
	{"same_version", "append a =0 | append a =0", ALL, "="},
	{"same_version_later", "append a =1 | append a =1", ALL, "=", "append a"},
	{"next_versions", "append a =0; append a =1 | append a =0; append a =1", ALL, "="},
	{"any_version", "append a | append a", ALL, "="},
	{"stream_exists", "append a exists | append a =0", ALL, "="},
	{"batches", "twice a =0 | twice a", ALL, "="},
	{"two_streams", "append a =0 | append b =0", ALL, "after_stream_lock,before_in_flight_lock,after_nextval,before_release"},
	{"three_racers", "append a =0 | append a =0 | append a =0", ALL, "after_stream_lock,after_insert,before_release"},
	{"three_any", "append a | append a | append a", ALL, "after_stream_lock,after_insert,before_release"},
	{"insert_append", "insert a | append a", ALL, "="},
	{"insert_append_version", "insert a =0 | append a =0", ALL, "="},
	{"abort_same_version", "begin; append a =0; rollback | append a =0", ALL, "="},
	{"abort_any", "begin; append a; rollback | append a; append a", ALL, "="},
	{"savepoint_back", "begin; append a =0; savepoint; append a =1; rollback_to; append a; commit | append a", "after_stream_lock,before_in_flight_lock,after_nextval,before_release", "after_nextval,before_release", NULL, "3B001"},
	{"table_lock", "begin; savepoint; lock; append a; rollback_to; append a; commit | append a", ALL, "="},
	{"table_lock_two", "begin; lock; append a; append b; commit | append b; append a | append a", "after_stream_lock,before_release", NULL},
	{"repeatable_read", "begin_rr; look; append a; commit | append a", ALL, "="},
	{"repeatable_read_version", "begin_rr; look; append a =0; commit | append a =0", ALL, "="},

	/* Event ids. */
	{"same_id_same_stream", "append a id1 | append a id1", ALL, "="},
	{"same_id_version", "append a =0 id1 | append a =0 id1", ALL, "="},
	{"same_id_two_streams", "append a id1 | append b id1", ALL, "after_stream_lock,after_nextval,before_release", NULL, "SE003"},
	{"same_id_abort", "begin; append a id1; rollback | append b id1", ALL, "after_nextval,after_insert,before_release", NULL, "SE003"},

	/* Several streams. */
	{"multi_opposite", "multi ab | multi ba", ALL, "="},
	{"multi_single", "multi ab | append b; append a", ALL, "after_stream_lock,after_nextval,before_release"},
	{"checks", "checked ab | checked ba", ALL, "="},
	{"check_append", "checked ba | append a; append b", ALL, "after_stream_lock,after_nextval,before_release"},
	{"opposite_order", "begin; append a; append b; commit | begin; append b; append a; commit", "after_stream_lock,after_nextval,before_release", "after_nextval", NULL, "40P01"},
	{"insert_opposite", "insert_both ab | insert_both ba", ALL, "after_stream_lock,after_nextval,before_release", NULL, "40P01"},

	/* Who writes, and who reads. */
	{"append_read", "append a | read; read", ALL, "before_in_flight_lock,after_nextval,before_release," READER},
	{"abort_read", "begin; append a; rollback | read", ALL, "before_in_flight_lock,after_nextval,before_release," READER},
	{"insert_read", "insert a | read", ALL, "before_in_flight_lock,after_nextval,before_release," READER},
	{"batch_read", "twice a | read", ALL, "after_nextval,before_release," READER},
	{"prepared_read", "begin; append a; prepare; commit_prepared | append b | read", "before_release,after_mark", "after_mark"},
	{"prepared_back_read", "begin; append a; prepare; rollback_prepared | append b | read", "before_release,after_mark", "after_mark"},
	{"repeatable_read_read", "begin; append a; commit | append b | begin_rr; look; read; read; commit", "after_mark", "="},
	{"append_append_read", "append a | append b | read", FLIGHT ",before_release", FLIGHT},
	{"same_append_append_read", "append a | append a | read", FLIGHT ",before_release", RELEASE},
	{"append_abort_read", "append a | begin; append b; rollback | read", RELEASE, "after_nextval,after_mark"},
	{"two_readers", "append a | read | read", FLIGHT, "after_nextval," READER},
	{"savepoint_read", "begin; savepoint; append a; rollback_to; append a; commit | append b | read", "after_nextval,after_mark", "after_mark"},
	{"insert_both_read", "insert_both ab | append b | read", "after_nextval,before_release," READER, NULL},
	{"cursor_savepoint", "begin; declare a; fetch a; savepoint; fetch_fails; rollback_to; commit | append b | read", "after_mark", "="},
	{"cursor_savepoint_stream", "begin; declare a; fetch a; savepoint; fetch_fails; rollback_to; commit | append a | read", "after_mark", "="},
	{"append_project", "append a | project", FLIGHT ",before_release", "="},
	{"append_append_project", "append a | append b | project", RELEASE, "after_nextval,after_mark"},
	{"project_project", "append a | project | project", RELEASE, "after_nextval,after_mark"},
	{"become_inline", "inline | append a | append b", RELEASE, "after_nextval,after_mark", "manual"},
	{"become_inline_between", "inline | begin; append a; append b; commit", ALL, RELEASE, "manual"},
	{"become_manual", "manual | append a | append b", RELEASE, "after_nextval,after_mark", "inline"},
	{"inline_abort", "manual; inline | begin; append a; rollback | append b", "after_nextval,before_release,after_mark", "after_nextval", "inline"},
	{NULL}
};

const Mistake mistakes[] = {
	{"in_flight_after_nextval", "append_append_read", true},
	{"lock_under_current_owner", "cursor_savepoint", true},
	{"lock_under_current_owner", "cursor_savepoint_stream", true},
	{"mark_after_snapshot", "append_append_read", true},
	{"checkpoint_is_mark", "abort_read", true},
	{"mvcc_snapshot", "any_version", true},
	{"mvcc_snapshot", "repeatable_read", false},
	{"no_stream_lock", "any_version", true},
	{"no_stream_lock", "same_version", false},
	{"wake_before_release", "worker_two", true},
	{"sequence_cache", "append_append_read", true},
	{NULL}
};

static const struct
{
	const char *word;
	OpKind		kind;
}			words[] =
{
	{"append", OP_APPEND},
	{"twice", OP_TWICE},
	{"multi", OP_MULTI},
	{"checked", OP_CHECKED},
	{"insert", OP_INSERT},
	{"insert_both", OP_INSERT_BOTH},
	{"declare", OP_DECLARE},
	{"fetch", OP_FETCH},
	{"fetch_fails", OP_FETCH_FAILS},
	{"lock", OP_LOCK},
	{"look", OP_LOOK},
	{"read", OP_READ},
	{"wait", OP_WAIT},
	{"project", OP_PROJECT},
	{"inline", OP_INLINE},
	{"manual", OP_MANUAL},
	{"begin", OP_BEGIN},
	{"begin_rr", OP_BEGIN_RR},
	{"commit", OP_COMMIT},
	{"rollback", OP_ROLLBACK},
	{"savepoint", OP_SAVEPOINT},
	{"rollback_to", OP_ROLLBACK_TO},
	{"prepare", OP_PREPARE},
	{"commit_prepared", OP_COMMIT_PREPARED},
	{"rollback_prepared", OP_ROLLBACK_PREPARED},
};

const Scenario *
find_scenario(const char *name)
{
	for (const Scenario *s = scenarios; s->name; s++)
		if (strcmp(s->name, name) == 0)
			return s;
	die("there is no scenario \"%s\"", name);
}

const char *
scenario_points(const Scenario *scenario, bool full)
{
	if (full || scenario->short_points == NULL || strcmp(scenario->short_points, "=") == 0)
		return scenario->points;
	return scenario->short_points;
}

static void
parse_op(Op *op, char *text)
{
	char	   *rest;
	char	   *word;

	text += strspn(text, " ");
	for (char *end = text + strlen(text); end > text && end[-1] == ' ';)
		*--end = '\0';
	snprintf(op->text, sizeof(op->text), "%s", text);
	op->expected = ANY_VERSION;
	word = strtok_r(text, " ", &rest);
	for (size_t i = 0;; i++)
	{
		if (i == sizeof(words) / sizeof(words[0]))
			die("no statement is called \"%s\"", word);
		op->kind = words[i].kind;
		if (strcmp(words[i].word, word) == 0)
			break;
	}
	while ((word = strtok_r(NULL, " ", &rest)) != NULL)
	{
		if (word[0] == '=')
			op->expected = atoi(word + 1);
		else if (strcmp(word, "exists") == 0)
			op->expected = STREAM_EXISTS;
		else if (strncmp(word, "id", 2) == 0)
			op->id = atoi(word + 2);
		else
			snprintf(op->streams, sizeof(op->streams), "%s", word);
	}
	if (op->kind == OP_CHECKED)
		op->expected = 0;
}

static void
parse_session(Session *session, const char *script, size_t length)
{
	char		copy[300];
	char	   *rest;

	snprintf(copy, sizeof(copy), "%.*s", (int) length, script);
	for (char *text = strtok_r(copy, ";", &rest); text; text = strtok_r(NULL, ";", &rest))
	{
		Op		   *op = &session->ops[session->nops++];

		if (session->nops > MAX_OPS)
			die("a session has too many statements");
		parse_op(op, text);
		if (op->kind == OP_READ)
			session->reads = true;
	}
}

/* Makes the sessions of a scenario, without their connections. */
void
parse_script(const Scenario *scenario)
{
	const char *script = scenario->script;

	for (;;)
	{
		size_t		length = strcspn(script, "|");

		sessions[nsessions].name = '1' + nsessions;
		sessions[nsessions].key = 1 + nsessions;
		parse_session(&sessions[nsessions++], script, length);
		if (script[length] == '\0')
			break;
		script += length + 1;
	}
	if (scenario->worker)
	{
		sessions[nsessions].name = 'w';
		sessions[nsessions++].key = WORKER_KEY;
	}
	if (scenario->setup)
		parse_session(&setup_session, scenario->setup, strlen(scenario->setup));
}

/* Does it write events? */
bool
appends(const Op *op)
{
	return op->kind == OP_APPEND || op->kind == OP_TWICE || op->kind == OP_MULTI ||
		op->kind == OP_CHECKED || op->kind == OP_INSERT || op->kind == OP_INSERT_BOTH || op->kind == OP_FETCH || op->kind == OP_FETCH_FAILS;
}

bool
uses_projection(const Scenario *scenario)
{
	return strstr(scenario->script, "project") || strstr(scenario->script, "inline") ||
		strstr(scenario->script, "manual");
}

const char *
event_id(int id)
{
	static char buffer[40];

	snprintf(buffer, sizeof(buffer), "00000000-0000-4000-8000-%08lx%04x", serial & 0xFFFFFFFF, id);
	return buffer;
}

static void
version_argument(char *buffer, size_t size, const Op *op)
{
	buffer[0] = '\0';
	if (op->expected != ANY_VERSION)
		snprintf(buffer, size, ", expected_version => %lld", (long long) op->expected);
}

/* Streams are named for the schedule, so that each begins anew. */
void
op_sql(char *sql, size_t size, Session *session, Op *op)
{
	static const char *const columns = "first_version, last_version, first_position, last_position, duplicate";
	char		version[60];
	char		id[80] = "";

	version_argument(version, sizeof(version), op);
	if (op->id)
		snprintf(id, sizeof(id), ", event_id => '%s'", event_id(op->id));
	switch (op->kind)
	{
		case OP_APPEND:
			snprintf(sql, size, "SELECT %s FROM event_store.append('ev', '%c-%ld', 'T', '1'%s%s)",
					 columns, op->streams[0], serial, version, id);
			break;
		case OP_TWICE:
			snprintf(sql, size, "SELECT %s FROM event_store.append_batch('ev', '%c-%ld', ARRAY['T', 'U'], ARRAY['1', '2']::jsonb[]%s)",
					 columns, op->streams[0], serial, version);
			break;
		case OP_MULTI:
			snprintf(sql, size, "SELECT %s FROM event_store.append_streams('ev', '["
					 "{\"stream\": \"%c-%ld\", \"events\": [{\"type\": \"T\", \"data\": 1}]}, "
					 "{\"stream\": \"%c-%ld\", \"events\": [{\"type\": \"T\", \"data\": 1}]}]')",
					 columns, op->streams[0], serial, op->streams[1], serial);
			break;
		case OP_CHECKED:
			snprintf(sql, size, "SELECT %s FROM event_store.append_streams('ev',"
					 " '[{\"stream\": \"%c-%ld\", \"events\": [{\"type\": \"T\", \"data\": 1}]}]',"
					 " '[{\"stream\": \"%c-%ld\", \"expected_version\": 0}]')",
					 columns, op->streams[0], serial, op->streams[1], serial);
			break;
		case OP_INSERT:
			if (op->expected == ANY_VERSION)
				snprintf(sql, size, "INSERT INTO ev (stream, type, data) VALUES ('%c-%ld', 'T', '1')"
						 " RETURNING version, version, position, position, false",
						 op->streams[0], serial);
			else
				snprintf(sql, size, "INSERT INTO ev (stream, version, type, data) VALUES ('%c-%ld', %lld, 'T', '1')"
						 " RETURNING version, version, position, position, false",
						 op->streams[0], serial, (long long) op->expected + 1);
			break;
		case OP_INSERT_BOTH:
			snprintf(sql, size, "INSERT INTO ev (stream, type, data) VALUES ('%c-%ld', 'T', '1'), ('%c-%ld', 'T', '1')"
					 " RETURNING version, version, position, position, false",
					 op->streams[0], serial, op->streams[1], serial);
			break;
		case OP_DECLARE:
			snprintf(sql, size, "DECLARE c CURSOR FOR SELECT %s FROM (VALUES (1), (2)) AS v (n)"
					 " CROSS JOIN LATERAL event_store.append('ev', '%c-%ld', 'T', to_jsonb(10 / (2 - n)))",
					 columns, op->streams[0], serial);
			break;
		case OP_FETCH:
		case OP_FETCH_FAILS:
			snprintf(sql, size, "FETCH 1 FROM c");
			break;
		case OP_LOCK:
			snprintf(sql, size, "LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE");
			break;
		case OP_LOOK:
			snprintf(sql, size, "SELECT count(*) FROM ev WHERE position > %lld", (long long) base);
			break;
		case OP_READ:
			snprintf(sql, size, "SELECT checkpoint, checkpoint_event_id, jsonb_path_query_array(events, '$[*].position')"
					 " FROM event_store.read_batch('ev', after => %lld%s%s%s)",
					 (long long) session->checkpoint,
					 session->checkpoint_id[0] ? ", after_event_id => '" : "", session->checkpoint_id,
					 session->checkpoint_id[0] ? "'" : "");
			break;
		case OP_WAIT:
			snprintf(sql, size, "SELECT event_store.wait_for_events('ev', after => %lld, timeout => '50 s')", (long long) base);
			break;
		case OP_PROJECT:
			snprintf(sql, size, "SELECT events, position FROM event_store.run_projection('p')");
			break;
		case OP_INLINE:
		case OP_MANUAL:
			snprintf(sql, size, "SELECT event_store.alter_projection('p', mode => '%s')",
					 op->kind == OP_INLINE ? "inline" : "manual");
			break;
		case OP_BEGIN:
			snprintf(sql, size, "BEGIN");
			break;
		case OP_BEGIN_RR:
			snprintf(sql, size, "BEGIN ISOLATION LEVEL REPEATABLE READ");
			break;
		case OP_COMMIT:
			snprintf(sql, size, "COMMIT");
			break;
		case OP_ROLLBACK:
			snprintf(sql, size, "ROLLBACK");
			break;
		case OP_SAVEPOINT:
			snprintf(sql, size, "SAVEPOINT s");
			break;
		case OP_ROLLBACK_TO:
			snprintf(sql, size, "ROLLBACK TO SAVEPOINT s");
			break;
		case OP_PREPARE:
			snprintf(sql, size, "PREPARE TRANSACTION '%s'", PQdb(session->conn));
			break;
		case OP_COMMIT_PREPARED:
			snprintf(sql, size, "COMMIT PREPARED '%s'", PQdb(session->conn));
			break;
		case OP_ROLLBACK_PREPARED:
			snprintf(sql, size, "ROLLBACK PREPARED '%s'", PQdb(session->conn));
			break;
	}
}
