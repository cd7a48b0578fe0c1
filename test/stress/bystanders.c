/*
 * bystanders.c
 *	  Clients that do other things in the meantime: what applications do beside,
 *	  other databases, and those who try to change events.
 */
#include "stress.h"

#include <string.h>

static void lock_and_notify(Client *client);
static void idle(Client *client);
static void idle_elsewhere(Client *client);
static void write_elsewhere(Client *client);
static void change(Client *client);

const Kind	bystander_kinds[] = {
	{"applocks", false, lock_and_notify, "40P01"},
	{"idle", false, idle, NULL},
	{"idle_elsewhere", false, idle_elsewhere, NULL},
	{"elsewhere", false, write_elsewhere, NULL},
	{"change", false, change, "55P03"},
	{"watch", false, watch, NULL},
	{NULL}
};

static Target elsewhere = {.database = "elsewhere"};

/* As long as it takes to be noticed, and short enough for the round's end. */
static void
stay_open(Client *client)
{
	int			steps = 5 + dice(client, 60);

	for (int i = 0; i < steps && !draining; i++)
		rest(50 * MS);
}

/* The application's own locks, in both forms, with any numbers; its own NOTIFY. */
static void
lock_and_notify(Client *client)
{
	Buffer		sql = {0};
	Answer		answer;

	if (!connected(client))
		return;
	add(&sql, "BEGIN; SELECT pg_advisory_xact_lock(%d, %d), pg_advisory_xact_lock_shared(%d); NOTIFY application, 'hello'; COMMIT",
		dice(client, 5), dice(client, 5), dice(client, 100));
	answer = query(client, sql.text);
	clear(&sql);
	if (answer == REFUSED)
	{
		check_refusal(client, NULL);
		(void) query(client, "ROLLBACK");
	}
	rest((5 + dice(client, 30)) * MS);
}

/* A transaction with an id and a snapshot that does nothing. */
static void
hold_transaction(Client *client)
{
	Answer		answer = query(client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()");

	if (answer == REFUSED)
		check_refusal(client, NULL);
	stay_open(client);
	if (client->conn)
		(void) query(client, "COMMIT");
}

static void
idle(Client *client)
{
	if (connected(client))
		hold_transaction(client);
}

static void
idle_elsewhere(Client *client)
{
	elsewhere.host = primary.host;
	if (connected_to(client, &elsewhere))
		hold_transaction(client);
}

static void
write_elsewhere(Client *client)
{
	Answer		answer;

	elsewhere.host = primary.host;
	if (!connected_to(client, &elsewhere))
		return;
	answer = query(client, "BEGIN; SELECT event_store.append('ev', 'x-' || (random() * 9)::int, 'T', '{}')");
	if (answer == OK && dice(client, 20) == 0)
		stay_open(client);
	if (answer == OK)
		answer = query(client, "COMMIT");
	if (answer == REFUSED)
	{
		check_refusal(client, NULL);
		(void) query(client, "ROLLBACK");
	}
	rest(dice(client, 10) * MS);
}

/* Nobody can change events; whatever he tries fails, and as it should. */
static void
change(Client *client)
{
	static const char *const attempts[] = {
		"UPDATE ev SET data = '{}' WHERE position = (SELECT max(position) FROM ev)",
		"UPDATE ev SET type = 'Other' WHERE false",
		"DELETE FROM ev",
		"DELETE FROM ONLY ev WHERE position < 10",
		"WITH gone AS (DELETE FROM ev RETURNING 1) SELECT count(*) FROM gone",
		"MERGE INTO ev USING (VALUES ('a-0')) v (stream) ON ev.stream = v.stream AND ev.version = 1 WHEN MATCHED THEN DELETE",
		"INSERT INTO ev (stream, type, data, event_id) SELECT stream, type, data, event_id FROM ev LIMIT 1 ON CONFLICT (event_id) DO UPDATE SET data = '{}'",
		"SET LOCAL session_replication_role = replica; DELETE FROM ev",
		"TRUNCATE ev",
		"TRUNCATE ev CASCADE"
	};
	int			n = dice(client, sizeof(attempts) / sizeof(attempts[0]));
	char		sql[500];
	Answer		answer;

	if (!connected(client))
		return;
	if (strncmp(attempts[n], "TRUNC", 5) == 0 && dice(client, 5))
		return;					/* all others have to wait for it */
	snprintf(sql, sizeof(sql), "BEGIN; SET LOCAL lock_timeout = '50ms'; %s; COMMIT", attempts[n]);
	answer = query(client, sql);
	if (answer == OK)
		violation(UNCHANGED, "this was done: %s", attempts[n]);
	else if (answer == REFUSED)
	{
		/* The upsert inserts first, if there is nothing to update. */
		check_refusal(client, "SE002");
		count_mutations += strcmp(client->sqlstate, "SE002") == 0;
		(void) query(client, "ROLLBACK");
	}
	rest((20 + dice(client, 50)) * MS);
}
