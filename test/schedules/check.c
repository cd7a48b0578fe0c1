/*
 * check.c
 *	  What each answer must be, and what must be true when a schedule is over.
 *
 * A move is the unit of time: what a statement did happened between the move that
 * started it and the one in which it ended.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedules.h"

/* An event of the schedule, as the table has it. */
typedef struct Event
{
	char		stream;
	int64_t		version;
	int64_t		position;
	char		event_id[40];
	bool		claimed;		/* by an append */
	bool		in_setup;
} Event;

bool		violated;
char		violation[500];

static Event events[MAX_EVENTS];
static int	nevents;

/* Only the first one is kept. */
void
violate(const char *format,...)
{
	va_list		args;

	if (violated)
		return;
	violated = true;
	va_start(args, format);
	vsnprintf(violation, sizeof(violation), format, args);
	va_end(args);
}

/* Was the stream at that version, for this session, at some instant of the call? */
static bool
was_at_version(const Session *session, const Op *op, char stream, int64_t version)
{
	int64_t		low = 0;
	int64_t		high = 0;

	for (int i = -1; i < nsessions; i++)
	{
		const Session *other = i < 0 ? &setup_session : &sessions[i];

		for (const Op *o = other->ops; o < other->ops + other->nops; o++)
			for (int p = 0; p < o->nparts && !o->duplicate; p++)
			{
				int64_t		n = o->parts[p].last_version - o->parts[p].first_version + 1;

				if (o->parts[p].stream != stream)
					continue;
				if (other == session)
				{
					/* Its own are seen until they are rolled back. */
					bool		seen = o < op && (o->fate == FATE_COMMITTED || o->commit_ended > op->started);

					low += seen ? n : 0;
					high += seen ? n : 0;
				}
				else if (o->fate == FATE_COMMITTED)
				{
					low += o->commit_ended < op->started ? n : 0;
					high += o->commit_started <= op->ended ? n : 0;
				}
			}
	}
	return low <= version && version <= high;
}

/* A conflict names a version, and not the expected one. */
static void
take_conflict(Session *session, Op *op, const char *detail)
{
	long		number;
	long long	version;

	if (op->expected == ANY_VERSION)
		violate("%c %s fails with SE001, though any version will do", session->name, op->text);
	else if (detail == NULL ||
			 sscanf(detail, "Stream \"%c-%ld\" is at version %lld, expected ", &op->told_stream, &number, &version) != 3 ||
			 number != serial || strchr(op->streams, op->told_stream) == NULL)
		violate("%c %s fails with SE001, which does not tell the stream's version: %s",
				session->name, op->text, detail ? detail : "no DETAIL");
	else if (op->expected == STREAM_EXISTS ? version > 0 : version == op->expected)
		violate("%c %s fails though the stream is at that version", session->name, op->text);
	else
		op->told_version = version;
}

static bool
allowed(const Op *op)
{
	if (op->kind == OP_FETCH_FAILS)
		return strcmp(op->sqlstate, "22012") == 0;
	/* The statements behind one that failed, up to the end of the transaction. */
	if (strcmp(op->sqlstate, "25P02") == 0 || strcmp(op->sqlstate, "57014") == 0)
		return true;
	return scenario->allowed && strstr(scenario->allowed, op->sqlstate);
}

static void
take_error(Session *session, Op *op, PGresult *result)
{
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	snprintf(op->sqlstate, sizeof(op->sqlstate), "%s", PQresultErrorField(result, PG_DIAG_SQLSTATE));
	snprintf(op->outcome, sizeof(op->outcome), "%s: %s", op->sqlstate, message);
	if (strcmp(op->sqlstate, "SE001") == 0)
		take_conflict(session, op, detail);
	else if (!allowed(op))
		violate("%c %s fails: %s", session->name, op->text, op->outcome);
}

static void
take_append(Session *session, Op *op, PGresult *result)
{
	int			length = 0;

	op->nparts = PQntuples(result);
	if (op->nparts != (op->kind == OP_MULTI || op->kind == OP_INSERT_BOTH ? 2 : 1))
	{
		violate("%c %s returns %d rows", session->name, op->text, op->nparts);
		op->nparts = 0;
	}
	for (int i = 0; i < op->nparts; i++)
	{
		Part	   *part = &op->parts[i];

		part->stream = op->streams[i];
		part->first_version = atoll(PQgetvalue(result, i, 0));
		part->last_version = atoll(PQgetvalue(result, i, 1));
		part->first_position = atoll(PQgetvalue(result, i, 2));
		part->last_position = atoll(PQgetvalue(result, i, 3));
		op->duplicate = PQgetvalue(result, i, 4)[0] == 't';
		length += snprintf(op->outcome + length, sizeof(op->outcome) - length, "%s%c: version %lld, position %lld%s",
						   i ? "; " : "", part->stream, (long long) part->first_version, (long long) part->first_position,
						   op->duplicate ? ", a duplicate" : "");
		if (op->expected == STREAM_EXISTS ? part->first_version < 2
			: op->kind != OP_CHECKED && op->expected != ANY_VERSION && !op->duplicate && part->first_version != op->expected + 1)
			violate("%c %s succeeds with version %lld", session->name, op->text, (long long) part->first_version);
	}
	op->fate = FATE_OPEN;
	if (PQtransactionStatus(session->conn) == PQTRANS_IDLE)
	{
		op->fate = FATE_COMMITTED;
		op->commit_started = op->started;
		op->commit_ended = op->ended;
	}
}

/* The fate of all that the transaction has appended, from a statement on. */
static void
decide(Op *end, Op *from, Fate fate)
{
	for (Op *op = from; op < end; op++)
		if (op->fate == FATE_OPEN)
		{
			op->fate = fate;
			op->commit_started = end->started;
			op->commit_ended = end->ended;
		}
}

static Op *
savepoint_before(Session *session, Op *op)
{
	while (op > session->ops && op->kind != OP_SAVEPOINT)
		op--;
	return op;
}

static void
take_batch(Session *session, Op *op, PGresult *result)
{
	const char *positions = PQgetvalue(result, 0, 2);
	int64_t		checkpoint = atoll(PQgetvalue(result, 0, 0));

	snprintf(op->outcome, sizeof(op->outcome), "reads %s, checkpoint %lld", positions, (long long) checkpoint);
	if (checkpoint < session->checkpoint)
		violate("the checkpoint of %c goes back", session->name);
	session->checkpoint = checkpoint;
	snprintf(session->checkpoint_id, sizeof(session->checkpoint_id), "%s", PQgetvalue(result, 0, 1));
	for (const char *p = positions; *p;)
	{
		char	   *end;
		int64_t		position = strtoll(p, &end, 10);

		if (end == p)
		{
			p++;
			continue;
		}
		p = end;
		if (session->nseen == MAX_EVENTS)
			die("a session reads too many events");
		session->seen[session->nseen++] = position;
		if (position > checkpoint)
			violate("%c reads position %lld, and its checkpoint is only %lld",
					session->name, (long long) position, (long long) checkpoint);
	}
}

/* Frees the result. */
void
take_answer(Session *session, Op *op, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);
	bool		ok = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;

	if (PQstatus(session->conn) != CONNECTION_OK)
		die("session %c has lost its connection: %s", session->name, PQerrorMessage(session->conn));
	if (!ok)
		take_error(session, op, result);
	else if (appends(op))
		take_append(session, op, result);
	else if (op->kind == OP_READ)
		take_batch(session, op, result);
	else if (op->kind == OP_COMMIT)
		decide(op, session->ops, strcmp(PQcmdStatus(result), "COMMIT") == 0 ? FATE_COMMITTED : FATE_ROLLED_BACK);
	else if (op->kind == OP_COMMIT_PREPARED)
		decide(op, session->ops, FATE_COMMITTED);
	else if (op->kind == OP_ROLLBACK || op->kind == OP_ROLLBACK_PREPARED)
		decide(op, session->ops, FATE_ROLLED_BACK);
	else if (op->kind == OP_ROLLBACK_TO)
		decide(op, savepoint_before(session, op), FATE_ROLLED_BACK);
	else if (op->kind == OP_WAIT)
	{
		snprintf(op->outcome, sizeof(op->outcome), "returns %s", PQgetvalue(result, 0, 0));
		if (atoll(PQgetvalue(result, 0, 0)) <= base)
			violate("the wait of %c returns nothing new", session->name);
	}
	else if (op->kind == OP_PROJECT)
		snprintf(op->outcome, sizeof(op->outcome), "%s events, up to %s", PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1));
	PQclear(result);
}

/* All events of this schedule, in the order of their positions. */
static void
load_events(void)
{
	PGresult   *result = queryf("SELECT stream, version, position, event_id FROM ev"
								" WHERE stream IN ('a-%ld', 'b-%ld', 'c-%ld') ORDER BY position",
								serial, serial, serial);

	nevents = PQntuples(result);
	if (nevents > MAX_EVENTS)
		die("there are too many events");
	for (int i = 0; i < nevents; i++)
	{
		Event	   *event = &events[i];

		event->stream = PQgetvalue(result, i, 0)[0];
		event->version = atoll(PQgetvalue(result, i, 1));
		event->position = atoll(PQgetvalue(result, i, 2));
		snprintf(event->event_id, sizeof(event->event_id), "%s", PQgetvalue(result, i, 3));
		event->claimed = event->in_setup = false;
	}
	PQclear(result);
}

/* In the order of their positions, the versions of each stream are 1, 2, 3 … */
static void
check_versions(void)
{
	for (int i = 0; i < nevents; i++)
	{
		int64_t		expected = 1;

		for (int j = 0; j < i; j++)
			if (events[j].stream == events[i].stream)
				expected++;
		if (events[i].version != expected)
			violate("version %lld of stream %c stands at position %lld, where version %lld should",
					(long long) events[i].version, events[i].stream,
					(long long) events[i].position, (long long) expected);
	}
}

static Event *
find_event(char stream, int64_t version)
{
	for (int i = 0; i < nevents; i++)
		if (events[i].stream == stream && events[i].version == version)
			return &events[i];
	return NULL;
}

/* Each committed append finds its events there, and nobody else's. */
static void
claim(Session *session, Op *op, Part *part)
{
	for (int64_t version = part->first_version; version <= part->last_version; version++)
	{
		Event	   *event = find_event(part->stream, version);

		if (event == NULL)
		{
			violate("version %lld, which %c %s has returned, is not there",
					(long long) version, session->name, op->text);
			return;
		}
		if (op->id && strcmp(event->event_id, event_id(op->id)) != 0)
			violate("%c %s has another event id", session->name, op->text);
		if ((version == part->first_version && event->position != part->first_position) ||
			(version == part->last_version && event->position != part->last_position))
			violate("%c %s has returned another position", session->name, op->text);
		if (op->duplicate)
			continue;
		if (event->claimed)
			violate("two appends have returned version %lld of stream %c", (long long) version, part->stream);
		event->claimed = true;
		event->in_setup = session == &setup_session;
	}
}

/* Whom a stream was checked for comes before all of its events. */
static void
check_check(Session *session, Op *op)
{
	Event	   *first = find_event(op->streams[1], 1);

	if (first && first->position < op->parts[0].first_position)
		violate("%c %s succeeds, though there is an event before it", session->name, op->text);
}

/* What was acknowledged before another was called has the lower positions. */
static void
check_order(Op *early, Op *late)
{
	if (early->fate != FATE_COMMITTED || late->fate != FATE_COMMITTED ||
		early->duplicate || late->duplicate || early->commit_ended >= late->started)
		return;
	for (int i = 0; i < early->nparts; i++)
		for (int j = 0; j < late->nparts; j++)
			if (early->parts[i].last_position >= late->parts[j].first_position)
				violate("%s, which began when %s was over, has the lower position", late->text, early->text);
}

static void
check_appends(void)
{
	for (int i = -1; i < nsessions; i++)
	{
		Session    *session = i < 0 ? &setup_session : &sessions[i];

		for (Op *op = session->ops; op < session->ops + session->nops; op++)
		{
			if (op->fate == FATE_OPEN)
				die("the scenario leaves a transaction open");
			for (int p = 0; op->fate == FATE_COMMITTED && p < op->nparts; p++)
				claim(session, op, &op->parts[p]);
			if (op->kind == OP_CHECKED && op->fate == FATE_COMMITTED)
				check_check(session, op);
			for (int j = 0; j < nsessions; j++)
				for (Op *late = sessions[j].ops; late < sessions[j].ops + sessions[j].nops; late++)
					check_order(op, late);
			if (strcmp(op->sqlstate, "SE001") == 0 &&
				!was_at_version(session, op, op->told_stream, op->told_version))
				violate("%c %s is told version %lld, at which the stream has not been",
						session->name, op->text, (long long) op->told_version);
			if (strcmp(op->sqlstate, "SE003") == 0)
			{
				bool		there = false;

				for (int e = 0; e < nevents; e++)
					there |= strcmp(events[e].event_id, event_id(op->id)) == 0;
				if (!there)
					violate("%c %s fails with SE003, and nobody has that id", session->name, op->text);
			}
		}
	}
	for (int i = 0; i < nevents; i++)
		if (!events[i].claimed)
			violate("the event at position %lld is of an append that has not been committed", (long long) events[i].position);
}

/* A checkpoint is an event, or where the consumer began. */
static void
check_checkpoint(const Session *session)
{
	for (int i = 0; i < nevents; i++)
		if (events[i].position == session->checkpoint)
		{
			if (strcmp(events[i].event_id, session->checkpoint_id) != 0)
				violate("the checkpoint of %c, %lld, has another event's id", session->name, (long long) session->checkpoint);
			return;
		}
	if (session->checkpoint != base)
		violate("the checkpoint of %c, %lld, is not the position of an event", session->name, (long long) session->checkpoint);
}

/* Nothing lost, nothing twice, nothing that has vanished. */
static void
compare_seen(const char *who, const int64_t *seen, int nseen)
{
	int			n = 0;

	for (int i = 0; i < nevents; i++)
	{
		if (events[i].in_setup)
			continue;
		if (n == nseen || seen[n] > events[i].position)
		{
			violate("the event at position %lld is lost to %s", (long long) events[i].position, who);
			return;
		}
		if (seen[n] < events[i].position)
		{
			violate("%s had an event at position %lld %s", who, (long long) seen[n],
					n > 0 && seen[n] <= seen[n - 1] ? "twice, or too late" : "that is not there");
			return;
		}
		n++;
	}
	if (n < nseen)
		violate("%s had an event at position %lld too many", who, (long long) seen[n]);
}

/* A reader gets the rest, and then has had everything. */
static void
check_reader(Session *session)
{
	char		who[20];
	Op			rest = {.kind = OP_READ,.text = "read"};
	char		sql[1000];
	int			before;

	check_checkpoint(session);
	do
	{
		before = session->nseen;
		op_sql(sql, sizeof(sql), session, &rest);
		take_batch(session, &rest, query(sql));
	} while (session->nseen > before);
	check_checkpoint(session);
	snprintf(who, sizeof(who), "reader %c", session->name);
	compare_seen(who, session->seen, session->nseen);
}

/* Events that were handled in the appending transactions may stand in another order. */
static void
check_projection(bool inlined)
{
	int64_t		seen[MAX_EVENTS];
	int			nseen;
	PGresult   *result;

	if (inlined)
		PQclear(query("SELECT event_store.alter_projection('p', mode => 'manual')"));
	PQclear(query("SELECT * FROM event_store.run_projection('p')"));
	result = queryf("SELECT position FROM model WHERE position > %lld ORDER BY %s",
					(long long) base, inlined ? "position" : "n");
	nseen = PQntuples(result);
	for (int i = 0; i < nseen && i < MAX_EVENTS; i++)
		seen[i] = atoll(PQgetvalue(result, i, 0));
	PQclear(result);
	compare_seen("the projection", seen, nseen);
}

/*
 * While the worker sleeps, all that can be read is published: nobody will tell it
 * again, unless somebody is about to end.  (It does not look again by itself here.)
 */
void
check_published(void)
{
	PGresult   *result;
	int64_t		newest;

	for (int i = 0; i < nsessions; i++)
		if (sessions[i].state == STATE_STOPPED &&
			(sessions[i].key == WORKER_KEY ||
			 strcmp(point_name(&sessions[i], sessions[i].point), "before_release") == 0 ||
			 strcmp(point_name(&sessions[i], sessions[i].point), "before_wake") == 0))
			return;
	result = queryf("SELECT checkpoint FROM event_store.read_batch('ev', after => %lld)", (long long) base);
	newest = atoll(PQgetvalue(result, 0, 0));
	PQclear(result);
	if (newest > base && newest_notified != newest)
		violate("the worker sleeps, and of what can be read up to %lld has published up to %lld only",
				(long long) newest, (long long) newest_notified);
}

void
check_schedule(void)
{
	load_events();
	check_versions();
	check_appends();
	for (int i = 0; i < nsessions; i++)
		if (sessions[i].reads)
			check_reader(&sessions[i]);
	if (uses_projection(scenario))
		check_projection(scenario->setup != NULL);
}
