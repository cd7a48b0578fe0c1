/*
 * main.c
 *	  Rounds of load and faults, each followed by a check of everything.
 *
 *	  stress ARGUMENT...
 *
 *	  clients=single,batch,poll,...		one client each, by the names of their kinds
 *	  round=SECONDS:FAULT+FAULT...		a round; "none", or "failover"
 *	  host=, data=, log=				the server's socket, directory and log
 *	  standby_host=, ...				the same of its standby, if there is one
 *	  seed=N
 *
 * Clients are anew in each round, the history and what readers have got go on. After a
 * violation there is no further round.  Exit status 1: something was violated.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_CLIENTS		100
#define MAX_ROUNDS		1000
#define END_WITHIN		(90 * SECOND)
#define TOLD_WITHIN		(20 * SECOND)

_Atomic bool draining;
_Atomic int64_t final = -1;
_Atomic bool abandoned;
_Atomic int64_t count_unknown;
_Atomic int64_t count_duplicates;
_Atomic int64_t count_mutations;
_Atomic int64_t count_cuts;
_Atomic int64_t count_out_of_locks;
_Atomic int64_t count_cancelled;
_Atomic int64_t count_deadlocks;

_Atomic bool measuring;			/* memory */

static Client *clients[MAX_CLIENTS];
static const Kind *client_kinds[MAX_CLIENTS];
static int	nclients;
static const char *rounds[MAX_ROUNDS];
static int	nrounds;
static int	rounds_done;

static void read_arguments(int argc, char **argv);
static void run_round(const char *what);
static void summarize(void);

int
main(int argc, char **argv)
{
	read_arguments(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long) seed);
	for (int i = 0; i < STREAMS; i++)
		(void) stream_name(i);
	for (int i = 0; i < nrounds && violations() == 0; i++)
		run_round(rounds[i]);
	summarize();
	return violations() > 0;
}

static const Kind *
find_kind(const char *name)
{
	const Kind *lists[] = {append_kinds, transaction_kinds, reader_kinds, bystander_kinds};

	for (int i = 0; i < 4; i++)
		for (const Kind *kind = lists[i]; kind->name; kind++)
			if (strcmp(kind->name, name) == 0)
				return kind;
	fprintf(stderr, "stress: no kind of client is named \"%s\"\n", name);
	exit(2);
}

static void
read_arguments(int argc, char **argv)
{
	seed = time(NULL);
	primary.database = standby.database = "stress";
	for (int i = 1; i < argc; i++)
	{
		char	   *value = strchr(argv[i], '=');

		if (value == NULL)
		{
			fprintf(stderr, "stress: not an argument: %s\n", argv[i]);
			exit(2);
		}
		*value++ = '\0';
		if (strcmp(argv[i], "clients") == 0)
		{
			for (char *name = strtok(value, ","); name; name = strtok(NULL, ","))
				client_kinds[nclients++] = find_kind(name);
		}
		else if (strcmp(argv[i], "round") == 0 && nrounds < MAX_ROUNDS)
			rounds[nrounds++] = value;
		else if (strcmp(argv[i], "seed") == 0)
			seed = strtoull(value, NULL, 10);
		else if (strcmp(argv[i], "host") == 0)
			primary.host = value;
		else if (strcmp(argv[i], "data") == 0)
			primary.data = value;
		else if (strcmp(argv[i], "log") == 0)
			primary.log = value;
		else if (strcmp(argv[i], "standby_host") == 0)
			standby.host = value;
		else if (strcmp(argv[i], "standby_data") == 0)
			standby.data = value;
		else if (strcmp(argv[i], "standby_log") == 0)
			standby.log = value;
		else
		{
			fprintf(stderr, "stress: no argument is named \"%s\"\n", argv[i]);
			exit(2);
		}
	}
}

static bool
is_over(Client *client)
{
	if (abandoned)
		return true;
	if (!client->kind->reads)
		return draining;
	return final >= 0 && client->reader && client->reader->progress >= final;
}

static void *
run_client(void *arg)
{
	Client	   *client = arg;

	while (!is_over(client))
	{
		client->kind->run(client);
		if (measuring && client->used_at_first == 0)
			client->used_at_first = memory_used(client);
	}
	if (client->used_at_first > 0)
		check_memory(client, memory_used(client));
	disconnect(client);
	client->ended = true;
	return NULL;
}

static void
start_clients(void)
{
	for (int i = 0; i < nclients; i++)
	{
		Client	   *client = calloc(1, sizeof(Client));

		client->kind = client_kinds[i];
		client->number = i;
		client->random = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15) ^ (rounds_done * 1000 + i + 1) * UINT64_C(0xBF58476D1CE4E5B9);
		clients[i] = client;
		pthread_create(&client->thread, NULL, run_client, client);
	}
}

/* A client that waits for events may wait for more than there are. */
static void
wake_waiters(void)
{
	PGconn	   *conn = try_connect(&primary, "checker");

	if (conn)
		PQclear(PQexec(conn, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'reader wait%'"));
	PQfinish(conn);
}

/* Nobody ends any more what has been prepared; others may wait for its locks. */
static bool
nobody_prepares(void)
{
	for (int i = 0; i < nclients; i++)
		if (strcmp(clients[i]->kind->name, "prepare") == 0 && !clients[i]->ended)
			return false;
	return true;
}

/* Evidence, for whoever looks: what the servers are doing. */
static void
show_state(Target *target)
{
	char		command[4096];

	if (target->host == NULL)
		return;
	fflush(stdout);
	snprintf(command, sizeof(command), "psql -X -h '%s' -d stress"
			 " -c 'SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()'"
			 " -c 'SELECT pid, backend_type, application_name, state, wait_event, xact_start, left(query, 60) AS query FROM pg_stat_activity'"
			 " -c 'SELECT pid, locktype, relation::regclass, mode, granted FROM pg_locks WHERE pid <> pg_backend_pid() OR pid IS NULL'"
			 " -c 'SELECT * FROM pg_prepared_xacts' -c 'SELECT application_name, state, sent_lsn, replay_lsn, sync_state FROM pg_stat_replication'"
			 " -c 'SELECT * FROM event_store.feeds' -c 'SELECT * FROM event_store.feed_marks' 2>&1", target->host);
	if (system(command) != 0)
		printf("%s cannot be asked\n", target->host);
}

/* Waits for a client; false: it does not end.  A reader may take as long as it gets on. */
static bool
wait_for(Client *client)
{
	bool		reads = client->kind->reads;
	int64_t		progress = -1;
	Time		deadline = 0;

	while (!client->ended)
	{
		int64_t		at = client->reader ? client->reader->progress : 0;

		if (at != progress)
			deadline = now() + (reads ? TOLD_WITHIN : END_WITHIN);
		progress = at;
		if (now() > deadline)
			return false;
		rest(10 * MS);
		if (!reads && nobody_prepares())
			end_prepared();
		if (reads && at >= final)
			wake_waiters();
	}
	pthread_join(client->thread, NULL);
	return true;
}

/* Waits for the clients of one sort to end. */
static void
join(bool readers)
{
	for (int i = 0; i < nclients && !abandoned; i++)
	{
		Client	   *client = clients[i];

		if (client->kind->reads != readers || wait_for(client))
			continue;
		if (readers)
			violation(LIVENESS, "reader %s %d is at %lld, and does not come to the end, %lld; it does: %.200s", client->kind->name, client->number,
					  client->reader ? (long long) client->reader->progress : 0, (long long) final, (const char *) client->doing);
		else
			violation(LIVENESS, "client %s %d does not end; it does: %.200s", client->kind->name, client->number, (const char *) client->doing);
		show_state(&primary);
		show_state(&standby);
		abandoned = true;
	}
}

static int64_t
last_position(void)
{
	PGconn	   *conn = try_connect(&primary, "checker");
	PGresult   *result;
	int64_t		position;

	if (conn == NULL)
		return 0;
	result = must(conn, "SELECT coalesce(max(position), 0) FROM ev");
	position = atoll(PQgetvalue(result, 0, 0));
	PQclear(result);
	PQfinish(conn);
	return position;
}

static void
make_synchronous(void)
{
	PGconn	   *conn = try_connect(&primary, "checker");
	bool		synchronous = false;

	if (conn == NULL)
		return;
	PQclear(must(conn, "ALTER SYSTEM SET synchronous_standby_names = '*'"));
	PQclear(must(conn, "SELECT pg_reload_conf()"));
	for (Time deadline = now() + 30 * SECOND; !synchronous && now() < deadline; rest(10 * MS))
	{
		PGresult   *result = must(conn, "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'");

		synchronous = PQntuples(result) > 0;
		PQclear(result);
	}
	if (!synchronous)
		violation(LIVENESS, "the standby does not become synchronous");
	PQfinish(conn);
}

/* Sleeps, but not when something is wrong. */
static void
let_run(Time duration)
{
	Time		end = now() + duration;

	while (now() < end && violations() == 0 && !abandoned)
		rest(10 * MS);
}

static void
run_round(const char *what)
{
	Time		duration = atof(what) * SECOND;
	const char *faults = strchr(what, ':') ? strchr(what, ':') + 1 : "none";
	bool		failing_over = strcmp(faults, "failover") == 0;
	bool		calm = strcmp(faults, "none") == 0;
	int64_t		begun = ops_begun();
	Time		at[5];			/* the phases of the end */

	draining = false;
	final = -1;
	if (failing_over)
		make_synchronous();
	faults_begin(failing_over ? "none" : faults);
	start_clients();
	let_run(duration / 2);
	if (failing_over)
		fail_over();
	else if (calm)
		memory_begin();
	let_run(duration / 2);
	/* On a slow machine it takes longer until each fault has come. */
	for (Time deadline = now() + 60 * SECOND; !faults_tried() && now() < deadline && violations() == 0 && !abandoned;)
		rest(10 * MS);
	if (calm)
		memory_end();
	at[0] = now();
	faults_end();
	draining = true;
	join(false);
	if (!abandoned)
		check_calm();
	at[1] = now();
	if (!abandoned)
		final = last_position();
	join(true);
	at[2] = now();
	if (!abandoned)
		check_projections();
	at[3] = now();
	check_history();
	at[4] = now();
	rounds_done++;
	if (calm)
		memory_said();
	printf("round %d, %s: %lld operations, %d violations", rounds_done, what, (long long) (ops_begun() - begun), violations());
	printf("; seconds until calm %.1f, all read %.1f, projected %.1f, checked %.1f\n",
		   (double) (at[1] - at[0]) / SECOND, (double) (at[2] - at[1]) / SECOND, (double) (at[3] - at[2]) / SECOND, (double) (at[4] - at[3]) / SECOND);
}

/* For the driver, which adds them up; "name number" on each line. */
static void
summarize(void)
{
	int64_t		by_outcome[DONE + 1] = {0};
	int64_t		events = 0;
	int64_t		seen = 0;
	int64_t		promises = 0;
	int64_t		nconflicts;
	int64_t		streams;
	int			nfaults;
	const char **names;
	const int64_t *counts;

	for (int64_t i = 0; i < ops_begun(); i++)
	{
		by_outcome[op_of(i)->outcome]++;
		if (op_of(i)->outcome == DONE)
			events += op_of(i)->nevents;
	}
	for (int i = 0; readers(i); i++)
	{
		seen += readers(i)->count;
		promises += readers(i)->npromises;
	}
	(void) conflicts(&nconflicts);
	(void) stream_reads(&streams);
	(void) faults_injected(&nfaults, &names, &counts);
	printf("summary rounds %d\n", rounds_done);
	for (int i = 0; i < nfaults; i++)
		printf("summary %s %lld\n", names[i], (long long) counts[i]);
	printf("summary acknowledged %lld\nsummary failed %lld\nsummary unknown %lld\nsummary lost_answers %lld\n",
		   (long long) by_outcome[DONE], (long long) by_outcome[FAILED], (long long) by_outcome[UNKNOWN], (long long) count_unknown);
	printf("summary cut_off %lld\nsummary out_of_locks %lld\nsummary cancelled %lld\nsummary deadlocks %lld\n",
		   (long long) count_cuts, (long long) count_out_of_locks, (long long) count_cancelled, (long long) count_deadlocks);
	printf("summary events %lld\nsummary conflicts %lld\nsummary duplicates %lld\nsummary changes_refused %lld\n",
		   (long long) events, (long long) nconflicts, (long long) count_duplicates, (long long) count_mutations);
	printf("summary delivered %lld\nsummary checkpoints %lld\nsummary stream_reads %lld\nsummary violations %d\n",
		   (long long) seen, (long long) promises, (long long) streams, violations());
}
