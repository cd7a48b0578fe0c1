/*
 * transactions.c
 *	  Clients that append in transactions of several statements.
 *
 * Before COMMIT is sent nothing can have happened; after it, the answer tells.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>

static void with_savepoint(Client *client);
static void with_cursor(Client *client);
static void roll_back(Client *client);
static void prepare(Client *client);
static void repeatable_read(Client *client);
static void serializable(Client *client);
static void take_long(Client *client);
static void alone(Client *client);

const Kind	transaction_kinds[] = {
	{"savepoint", false, with_savepoint, "40P01"},
	{"cursor", false, with_cursor, "40P01"},
	{"rollback", false, roll_back, "40P01"},
	{"prepare", false, prepare, "40P01"},
	{"repeatable", false, repeatable_read, "SE001 40P01"},
	{"serializable", false, serializable, "SE001 40001 40P01"},
	{"long", false, take_long, "40P01"},
	{"alone", false, alone, NULL},
	{NULL}
};

static Op *
begin(Client *client, const char *command)
{
	if (!connected(client) || query(client, command) != OK)
		return NULL;
	return op_begin(IN_TRANSACTION, true);
}

/* Ends an operation that cannot have been committed. */
static void
give_up(Client *client, Op *op, Answer answer)
{
	op->outcome = FAILED;
	if (answer == REFUSED)
	{
		check_refusal(client, NULL);
		(void) query(client, "ROLLBACK");
	}
}

/* Appends a batch to a part that has been added last. */
static Answer
append_part(Client *client, Op *op, int from)
{
	Part	   *part = &op->parts[op->nparts - 1];
	Buffer		sql = {0};
	Answer		answer;

	add(&sql, "SELECT first_version, last_version, first_position, last_position FROM event_store.append_batch('ev', '%s', ARRAY[", stream_name(part->stream));
	add_events(&sql, op, from, part->nevents, "'%s'");
	add(&sql, "], ARRAY[");
	add_events(&sql, op, from, part->nevents, "'%2$s'");
	add(&sql, "]::jsonb[], event_ids => ARRAY[");
	add_events(&sql, op, from, part->nevents, "'%3$s'");
	add(&sql, "]::uuid[]");
	if (part->expected != ANY)
		add(&sql, ", expected_version => %lld", (long long) part->expected);
	add(&sql, ")");
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == OK)
	{
		part->first_version = number(client, 0, 0);
		part->last_version = number(client, 0, 1);
		part->first_position = number(client, 0, 2);
		part->last_position = number(client, 0, 3);
	}
	return answer;
}

static void
commit(Client *client, Op *op)
{
	Answer		answer;

	client->may_be_cut = true;
	answer = query(client, "COMMIT");
	if (answer == LOST)
	{
		op->outcome = UNKNOWN;
		count_unknown++;
	}
	else if (answer == REFUSED)
	{
		op->outcome = FAILED;
		check_refusal(client, NULL);
	}
	else if (strcmp(PQcmdStatus(client->result), "COMMIT") == 0)
		op_done(op, now());
	else
		violation(ERRORS, "COMMIT was answered by %s", PQcmdStatus(client->result));
}

/* Three parts; the second one is rolled back. */
static void
with_savepoint(Client *client)
{
	Op		   *op = begin(client, "BEGIN");
	Answer		answer = OK;
	int			from = 0;

	if (op == NULL)
		return;
	for (int i = 0; i < 3; i++)
		op_part(op, some_stream(client), ANY, 1 + dice(client, 3));
	op_number(op);
	op->nparts = 0;				/* they come one by one */
	for (int i = 0; i < 3 && answer == OK; i++)
	{
		op->nparts++;
		if (i == 1)
			answer = query(client, "SAVEPOINT s");
		if (answer == OK)
			answer = append_part(client, op, from);
		if (i == 1 && answer == OK)
		{
			answer = query(client, "ROLLBACK TO SAVEPOINT s");
			op->parts[1].undone = true;
		}
		from += op->parts[i].nevents;
	}
	op->nparts = 3;
	if (answer != OK)
		give_up(client, op, answer);
	else
		commit(client, op);
}

/*
 * A cursor that appends, and fails inside a savepoint: what it has fetched
 * before survives.
 */
static void
with_cursor(Client *client)
{
	Op		   *op = begin(client, "BEGIN");
	Buffer		sql = {0};
	Answer		answer;
	char		data[2][100];
	char		id[2][37];
	int			stream = some_stream(client);

	if (op == NULL)
		return;
	op_part(op, stream, ANY, 2);
	op_number(op);
	for (int i = 0; i < 2; i++)
	{
		event_data(data[i], op->serial, i);
		event_id(id[i], op->serial, i);
	}
	add(&sql, "DECLARE c CURSOR FOR SELECT a.first_version, a.first_position FROM (VALUES (1, '%s', '%s'), (2, '%s', '%s'), (3, 'none', NULL)) AS v (n, data, id)"
		" CROSS JOIN LATERAL event_store.append('ev', '%s', 'T' || (n - 1), data::jsonb, event_id => id::uuid) AS a",
		data[0], id[0], data[1], id[1], stream_name(stream));
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == OK)
		answer = query(client, "FETCH 2 FROM c");
	if (answer == OK)
	{
		op->parts[0].first_version = number(client, 0, 0);
		op->parts[0].last_version = number(client, 1, 0);
		op->parts[0].first_position = number(client, 0, 1);
		op->parts[0].last_position = number(client, 1, 1);
		answer = query(client, "SAVEPOINT s");
	}
	if (answer == OK)
	{
		answer = query(client, "FETCH 1 FROM c");
		if (answer == OK)
			violation(ERRORS, "the cursor did not fail");
		else if (answer == REFUSED && strcmp(client->sqlstate, "22P02") == 0)
			answer = query(client, "ROLLBACK TO SAVEPOINT s");
	}
	if (answer == OK)
	{
		rest(dice(client, 10) * MS);
		commit(client, op);
	}
	else
		give_up(client, op, answer);
}

/* Burns positions. */
static void
roll_back(Client *client)
{
	Op		   *op = begin(client, "BEGIN");
	Answer		answer;

	if (op == NULL)
		return;
	op_part(op, some_stream(client), ANY, 1 + dice(client, 50));
	op_number(op);
	answer = append_part(client, op, 0);
	op->outcome = FAILED;
	if (answer == REFUSED)
		check_refusal(client, NULL);
	if (answer != LOST)
		(void) query(client, "ROLLBACK");
	rest(dice(client, 20) * MS);
}

/*
 * Whoever was cut off in PREPARE may yet do it.  When that backend has gone it is
 * there or not; and it must not keep its locks for ever.
 */
static void
undo_prepared(Client *client, Op *op, int pid)
{
	char		sql[200];

	while (connected(client))
	{
		snprintf(sql, sizeof(sql), "SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND application_name LIKE 'writer prepare%%'", pid);
		if (query(client, sql) == OK && number(client, 0, 0) == 0)
		{
			snprintf(sql, sizeof(sql), "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'op %lld'", (long long) op->serial);
			if (query(client, sql) == OK && number(client, 0, 0) == 0)
			{
				op->outcome = FAILED;
				return;
			}
			snprintf(sql, sizeof(sql), "ROLLBACK PREPARED 'op %lld'", (long long) op->serial);
			if (client->conn)
				(void) query(client, sql);
		}
		rest(2 * MS);
	}
}

/* Prepares, goes on, and ends it later in another session. */
static void
prepare(Client *client)
{
	Op		   *op = begin(client, "BEGIN");
	char		command[100];
	Answer		answer;
	bool		maybe = false;
	bool		wanted = dice(client, 8) > 0;
	int			pid;

	if (op == NULL)
		return;
	pid = PQbackendPID(client->conn);
	op_part(op, quiet_stream(client), ANY, 1 + dice(client, 3));
	op_number(op);
	answer = append_part(client, op, 0);
	if (answer == OK)
	{
		snprintf(command, sizeof(command), "PREPARE TRANSACTION 'op %lld'", (long long) op->serial);
		client->may_be_cut = true;
		answer = query(client, command);
		if (answer == LOST)
		{
			op->outcome = UNKNOWN;
			count_unknown++;
			undo_prepared(client, op, pid);
			return;
		}
	}
	if (answer != OK)
	{
		give_up(client, op, answer);
		return;
	}
	rest(dice(client, 100) * MS);
	disconnect(client);
	snprintf(command, sizeof(command), "%s PREPARED 'op %lld'", wanted ? "COMMIT" : "ROLLBACK", (long long) op->serial);
	op->outcome = UNKNOWN;
	while (connected(client))
	{
		client->may_be_cut = true;
		answer = query(client, command);
		if (answer == LOST)
		{
			maybe = true;
			count_unknown++;
			continue;
		}
		/* Whoever was cut off may still be at it: 55000 is "busy". */
		if (answer == REFUSED && maybe && strcmp(client->sqlstate, "55000") == 0)
		{
			rest(5 * MS);
			continue;
		}
		if (answer == REFUSED && !(maybe && strcmp(client->sqlstate, "42704") == 0))
		{
			check_refusal(client, NULL);
			if (!sqlstate_in(client->sqlstate, fault_errors()))
				break;
			continue;
		}
		if (wanted)
			op_done(op, now());
		else
			op->outcome = FAILED;
		break;
	}
}

/* The snapshot is old when it appends, and what it expects is of then. */
static void
old_snapshot(Client *client, const char *command)
{
	Op		   *op = begin(client, command);
	int			stream = quiet_stream(client);
	Buffer		sql = {0};
	Answer		answer;
	Time		asked;

	if (op == NULL)
		return;
	/* Not the fourth category: its inline projection cannot be up to date then. */
	if (stream % CATEGORIES == CATEGORIES - 1)
		stream--;
	add(&sql, "SELECT event_store.stream_version('ev', '%s')", stream_name(stream));
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == OK)
	{
		op_part(op, stream, dice(client, 2) ? number(client, 0, 0) : ANY, 1 + dice(client, 3));
		rest(dice(client, 5) * MS);
	}
	else
		op_part(op, stream, ANY, 1);
	op_number(op);
	asked = now();
	if (answer == OK)
		answer = append_part(client, op, 0);
	if (answer == OK)
		commit(client, op);
	else
	{
		long long	actual;

		if (answer == REFUSED && strcmp(client->sqlstate, "SE001") == 0 &&
			sscanf(client->detail, "Stream \"%*[^\"]\" is at version %lld", &actual) == 1)
			note_conflict((Conflict) {.stream = stream, .expected = op->parts[0].expected, .actual = actual, .asked = asked, .answered = now()});
		give_up(client, op, answer);
	}
}

static void
repeatable_read(Client *client)
{
	old_snapshot(client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
}

static void
serializable(Client *client)
{
	old_snapshot(client, "BEGIN ISOLATION LEVEL SERIALIZABLE");
}

/* Holds back the mark, and its stream. */
static void
take_long(Client *client)
{
	Op		   *op = begin(client, "BEGIN");
	Answer		answer;

	if (op == NULL)
		return;
	op_part(op, quiet_stream(client), ANY, 1 + dice(client, 3));
	op_number(op);
	answer = append_part(client, op, 0);
	if (answer != OK)
	{
		give_up(client, op, answer);
		return;
	}
	rest((100 + dice(client, 400)) * MS);
	if (dice(client, 4) == 0)
	{
		op->outcome = FAILED;
		(void) query(client, "ROLLBACK");
	}
	else
		commit(client, op);
}

/* Has everybody who counts on being told been told, within a few seconds? */
static void
expect_told(int64_t position)
{
	Time		deadline = now() + 5 * SECOND;
	bool		all = false;

	while (!all && now() < deadline)
	{
		all = true;
		for (int i = 0; readers(i); i++)
			all = all && readers(i)->progress >= position;
		if (!all)
			rest(MS);
	}
	if (!all)
		violation(LIVENESS, "position %lld was acknowledged 5 s ago, and somebody who waits has not been told", (long long) position);
}

/*
 * The only writer, with two transactions.  The first one ends, and nothing else does, so
 * a wake-up that comes too early, or not at all, is not made up for by the next one.
 */
static void
alone(Client *client)
{
	Client		other = *client;
	Op		   *ops[2];
	Client	   *who[2] = {client, &other};
	Answer		answer = OK;

	other.conn = NULL;
	other.result = NULL;
	for (int i = 0; i < 2 && answer == OK; i++)
	{
		ops[i] = begin(who[i], "BEGIN");
		if (ops[i] == NULL)
			return;
		op_part(ops[i], 2 * dice(client, STREAMS / 2) + i, ANY, 1);
		op_number(ops[i]);
		answer = append_part(who[i], ops[i], 0);
		if (answer != OK)
			give_up(who[i], ops[i], answer);
	}
	for (int i = 0; i < 2 && answer == OK; i++)
	{
		commit(who[i], ops[i]);
		if (ops[i]->outcome == DONE)
			expect_told(ops[i]->parts[0].last_position);
	}
	disconnect(&other);
}
