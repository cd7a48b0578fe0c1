/*
 * check_server.c
 *	  What the server keeps beside the rows: locks, projections, memory.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>

#define CALM_WITHIN		(30 * SECOND)
#define MAX_WATCHED		200			/* processes */

/* Bytes in use in a backend, and kilobytes of a background process, between half-time and end. */
#define MAY_USE			(256 * 1024)
#define MAY_GROW		4096

static PGconn *
connection(void)
{
	PGconn	   *conn = NULL;
	Time		deadline = now() + CALM_WITHIN;

	while ((conn = try_connect(&primary, "checker")) == NULL && now() < deadline)
		rest(20 * MS);
	if (conn == NULL)
	{
		violation(LIVENESS, "nobody can connect to check");
		abandoned = true;
	}
	return conn;
}

/* Waits until the query returns no row; says what it returns instead. */
static bool
none(PGconn *conn, const char *sql, char *rest_of_it, size_t size)
{
	Time		deadline = now() + CALM_WITHIN;

	for (;;)
	{
		PGresult   *result = must(conn, sql);
		int			rows = PQntuples(result);

		if (rows > 0)
			snprintf(rest_of_it, size, "%s", PQgetvalue(result, 0, 0));
		PQclear(result);
		if (rows == 0)
			return true;
		if (now() > deadline)
			return false;
		rest(10 * MS);
	}
}

/* Rolls back what nobody knows to be prepared: who did it was cut off. */
void
end_prepared(void)
{
	PGconn	   *conn = connection();
	PGresult   *prepared;

	if (conn == NULL)
		return;
	/* While others are still at it there may be no locks to be had: later, then. */
	prepared = PQexec(conn, "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database()");
	for (int i = 0; i < PQntuples(prepared); i++)
		PQclear(PQexec(conn, PQgetvalue(prepared, i, 0)));
	PQclear(prepared);
	PQfinish(conn);
}

/*
 * 7: when the writers have gone, and what they have prepared is ended, nobody
 * holds a lock of ours.
 */
void
check_calm(void)
{
	PGconn	   *conn = connection();
	char		left[1000];

	if (conn == NULL)
		return;
	if (!none(conn, "SELECT pid || ' ' || application_name || ': ' || query FROM pg_stat_activity WHERE application_name LIKE 'writer%'", left, sizeof(left)))
		violation(LIVENESS, "a client has gone, but its backend has not: %s", left);
	end_prepared();
	if (!none(conn, "SELECT l::text FROM pg_locks l WHERE locktype = 'userlock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", left, sizeof(left)))
		violation(SERVER, "a lock is left behind: %s", left);
	if (!none(conn, "SELECT h::text FROM event_store.mark_holders h", left, sizeof(left)))
		violation(SERVER, "somebody holds back the mark: %s", left);
	PQfinish(conn);
}

#define FOLD	"SELECT stream, count(*) AS n, sum((data ->> 'n')::bigint) AS total, max(version) AS last_version, max(position) AS last_position FROM ev"
#define DIFFERS	"SELECT (SELECT count(*) FROM ((%1$s) EXCEPT ALL (%2$s)) a) + (SELECT count(*) FROM ((%2$s) EXCEPT ALL (%1$s)) b)"

/* The read models of tables.sql, what they are folds of, and how it is said to which position. */
static const struct
{
	const char *projection;
	const char *model;
	const char *fold;			/* ends in a condition */
	const char *group;
	const char *until;			/* while events are appended; NULL: nothing can be said then */
}			models[] = {
	{"totals", "TABLE totals", FOLD " WHERE true", " GROUP BY stream",
	" AND position <= (SELECT position FROM event_store.projection_checkpoints WHERE projection = 'totals' AND NOT rebuild)"},
	{"parts", "TABLE parts", FOLD " WHERE true", " GROUP BY stream", NULL},
	{"one_by_one", "TABLE one_by_one", "SELECT stream, max(version) AS version, count(*) AS n FROM ev WHERE true", " GROUP BY stream",
	" AND position <= (SELECT position FROM event_store.projection_checkpoints WHERE projection = 'one_by_one' AND NOT rebuild)"},
	{"at_once", "TABLE at_once", FOLD " WHERE stream LIKE 'd-%'", " GROUP BY stream", ""}
};

#define MODELS	((int) (sizeof(models) / sizeof(models[0])))

/* How many rows of a read model are wrong; all of it in one snapshot. */
static void
add_difference(Buffer *sql, int m, bool at_end)
{
	char		fold[2000];

	snprintf(fold, sizeof(fold), "%s%s%s", models[m].fold, at_end ? "" : models[m].until, models[m].group);
	add(sql, DIFFERS, models[m].model, fold);
}

/* 6: when nobody appends, read models are folds of all events. */
void
check_projections(void)
{
	PGconn	   *conn = connection();

	for (int m = 0; conn && m < MODELS; m++)
	{
		Buffer		sql = {0};
		PGresult   *result;
		/* Once something is wrong it need not come to the end, and nobody waits for it. */
		bool		patient = violations() == 0;

		add(&sql, "SELECT status, event_store.wait_for_projection(name, timeout => '%s'), last_error FROM event_store.projections WHERE name = '%s' AND status NOT IN ('failed', 'paused')"
			" UNION ALL SELECT status, false, last_error FROM event_store.projections WHERE name = '%s' AND status IN ('failed', 'paused')", patient ? "60 s" : "1 s", models[m].projection, models[m].projection);
		result = PQexec(conn, sql.text);
		clear(&sql);
		if (PQresultStatus(result) != PGRES_TUPLES_OK)
		{
			/* It has failed while it was waited for. */
			violation(PROJECTIONS, "projection %s does not come to the end: %s", models[m].projection, PQerrorMessage(conn));
			PQclear(result);
			continue;
		}
		if (PQntuples(result) == 0)
		{
			PQclear(result);
			continue;			/* not in this run */
		}
		if (PQgetvalue(result, 0, 1)[0] != 't')
		{
			bool		failed = strcmp(PQgetvalue(result, 0, 0), "failed") == 0;

			if (patient || failed)
				violation(failed ? PROJECTIONS : LIVENESS, "projection %s does not come to the end: it is %s %s",
						  models[m].projection, PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 2));
			PQclear(result);
			continue;
		}
		PQclear(result);
		add_difference(&sql, m, true);
		result = must(conn, sql.text);
		clear(&sql);
		if (atoll(PQgetvalue(result, 0, 0)) != 0)
			violation(PROJECTIONS, "%s rows of the read model %s differ from the fold of all events", PQgetvalue(result, 0, 0), models[m].projection);
		PQclear(result);
	}
	PQfinish(conn);
}

/* 5: no checkpoint of a projection goes back, but by a crash: its commits are not flushed. */
static void
watch_checkpoints(Client *client)
{
	static int64_t before[MODELS][8];
	static int64_t crashes_before;
	int64_t		crashes_now = crashes;

	if (query(client, "SELECT projection, partition, position FROM event_store.projection_checkpoints WHERE NOT rebuild") != OK)
		return;
	for (int row = 0; row < PQntuples(client->result); row++)
		for (int m = 0; m < MODELS; m++)
			if (strcmp(models[m].projection, value(client, row, 0)) == 0)
			{
				int64_t    *last = &before[m][number(client, row, 1) % 8];

				if (number(client, row, 2) < *last && crashes == crashes_before)
					violation(CHECKPOINTS, "the checkpoint of projection %s went back from %lld to %s", models[m].projection,
							  (long long) *last, value(client, row, 2));
				*last = number(client, row, 2);
			}
	crashes_before = crashes_now;
}

/* 6, under load: read models are folds up to their checkpoints, at every instant. */
void
watch(Client *client)
{
	Time		begun = now();

	if (!connected(client))
		return;
	watch_checkpoints(client);
	for (int m = 0; client->conn && m < MODELS && !draining; m++)
	{
		Buffer		sql = {0};
		Answer		answer;

		if (models[m].until == NULL)
			continue;
		add_difference(&sql, m, false);
		answer = query(client, sql.text);
		clear(&sql);
		if (answer == REFUSED)
			check_refusal(client, NULL);
		if (answer == OK && number(client, 0, 0) != 0)
			violation(PROJECTIONS, "under load, %s rows of the read model %s differ from the fold up to its checkpoint", value(client, 0, 0), models[m].projection);
	}
	rest(100 * MS + 3 * (now() - begun));
}

/* 7: what the client's backend uses between two statements; 0: not known. */
int64_t
memory_used(Client *client)
{
	if (client->conn == NULL || PQtransactionStatus(client->conn) != PQTRANS_IDLE ||
		query(client, "SELECT sum(used_bytes) FROM pg_backend_memory_contexts") != OK)
		return 0;
	if (client->used_at_first > 0 && client->pid != PQbackendPID(client->conn))
		return 0;
	client->pid = PQbackendPID(client->conn);
	return number(client, 0, 0);
}

static int64_t most_used;
static int	nused;

void
check_memory(Client *client, int64_t used)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	int64_t		grown = used - client->used_at_first;

	if (used == 0)
		return;
	if (grown > MAY_USE)
		violation(SERVER, "the backend of %s %d used %lld bytes more at the end than at half-time", client->kind->name, client->number, (long long) grown);
	pthread_mutex_lock(&mutex);
	nused++;
	if (grown > most_used)
		most_used = grown;
	pthread_mutex_unlock(&mutex);
}

/* The same of processes that cannot be asked. */
static int64_t
memory_of(int pid)
{
	char		name[64];
	char		line[256];
	FILE	   *file;
	long long	kb = -1;

	snprintf(name, sizeof(name), "/proc/%d/status", pid);
	file = fopen(name, "r");
	if (file == NULL)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %lld", &kb) == 1)
			break;
	fclose(file);
	return kb;
}

static struct
{
	int			pid;
	int64_t		kb;
	char		name[200];
}			watched[MAX_WATCHED];
static int	nwatched;

void
memory_begin(void)
{
	PGconn	   *conn = connection();
	PGresult   *result;

	if (conn == NULL)
		return;
	result = must(conn, "SELECT pid, backend_type || ' ' || application_name FROM pg_stat_activity WHERE backend_type LIKE 'event_store%'");
	measuring = true;
	nwatched = 0;
	for (int i = 0; i < PQntuples(result) && i < MAX_WATCHED; i++)
	{
		watched[nwatched].pid = atoi(PQgetvalue(result, i, 0));
		watched[nwatched].kb = memory_of(watched[nwatched].pid);
		snprintf(watched[nwatched].name, sizeof(watched[nwatched].name), "%s", PQgetvalue(result, i, 1));
		nwatched++;
	}
	PQclear(result);
	PQfinish(conn);
}

void
memory_end(void)
{
	int64_t		most = 0;
	int			alive = 0;

	for (int i = 0; i < nwatched; i++)
	{
		int64_t		kb = memory_of(watched[i].pid);

		if (kb < 0 || watched[i].kb < 0)
			continue;
		alive++;
		if (kb - watched[i].kb > most)
			most = kb - watched[i].kb;
		if (kb - watched[i].kb > MAY_GROW)
			violation(SERVER, "the memory of \"%s\" has grown from %lld to %lld kB", watched[i].name, (long long) watched[i].kb, (long long) kb);
	}
	measuring = false;
	printf("memory of %d background processes: grown by %lld kB at most\n", alive, (long long) most);
	nwatched = 0;
}

/* When the clients have gone. */
void
memory_said(void)
{
	printf("memory of %d backends: grown by %lld bytes at most\n", nused, (long long) most_used);
	if (nused == 0 && violations() == 0)
		violation(SERVER, "nobody's memory was measured");
	nused = 0;
	most_used = 0;
}
