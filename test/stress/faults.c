/*
 * faults.c
 *	  Bad days: a thread that injects faults, one at a time.
 *
 * Only processes whose parent is the postmaster of the test are killed or stopped.
 */
#define _GNU_SOURCE
#include "stress.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COME_BACK	(60 * SECOND)
#define HOARD		200			/* connections */

static void kill_backend(void);
static void kill_background(void);
static void kill_postmaster(void);
static void shut_down(void);
static void freeze(void);
static void terminate(void);
static void cancel(void);
static void exhaust_connections(void);
static void crash_standby(void);

/* errors: what the others may then be told, beside a broken connection. */
static const struct
{
	const char *name;
	void		(*inject) (void);
	const char *errors;
}			kinds[] = {
	{"backend", kill_backend, "57P02 57P03"},
	{"background", kill_background, "57P02 57P03"},
	{"postmaster", kill_postmaster, "57P02 57P03"},
	{"immediate", shut_down, "57P02 57P03"},
	{"freeze", freeze, ""},
	{"terminate", terminate, "57P01"},
	{"cancel", cancel, "57014"},
	{"connections", exhaust_connections, "53300"},
	{"standby", crash_standby, ""},
	{"cut", NULL, ""},			/* by the clients themselves */
	{"locks", NULL, "53200"}	/* by the writer of that name */
};

#define KINDS	((int) (sizeof(kinds) / sizeof(kinds[0])))

static bool on[KINDS];
static char errors[200];
static int64_t injected[KINDS];
_Atomic int64_t crashes;		/* of the primary; counted before they happen */
static _Atomic int64_t tried[KINDS];	/* in this round */
static _Atomic bool running;
static pthread_t thread;
static uint64_t randomness;

static PGconn *control;

bool
fault_is_on(const char *name)
{
	for (int i = 0; i < KINDS; i++)
		if (strcmp(kinds[i].name, name) == 0)
			return on[i];
	return false;
}

const char *
fault_errors(void)
{
	return errors[0] ? errors : NULL;
}

static uint64_t
roll(uint64_t sides)
{
	randomness ^= randomness << 13;
	randomness ^= randomness >> 7;
	randomness ^= randomness << 17;
	return randomness % sides;
}

/* Reads the postmaster's pid; 0: there is none. */
static pid_t
postmaster_of(Target *target)
{
	char		name[1024];
	FILE	   *file;
	int			pid = 0;

	snprintf(name, sizeof(name), "%s/postmaster.pid", target->data);
	file = fopen(name, "r");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%d", &pid) != 1)
		pid = 0;
	fclose(file);
	return pid;
}

static bool
is_child(pid_t pid, pid_t parent)
{
	char		name[64];
	char		line[256];
	FILE	   *file;
	int			found = -1;

	snprintf(name, sizeof(name), "/proc/%d/status", pid);
	file = fopen(name, "r");
	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "PPid: %d", &found) == 1)
			break;
	fclose(file);
	return parent > 1 && found == parent;
}

static bool
pg_ctl(Target *target, const char *command)
{
	char		line[4096];

	snprintf(line, sizeof(line), "pg_ctl -D '%s' -l '%s' -w -t 60 -s %s >/dev/null 2>&1", target->data, target->log, command);
	return system(line) == 0;
}

/* What is left of the old one may be in the way for a moment. */
static void
start(Target *target)
{
	Time		deadline = now() + COME_BACK;

	while (!pg_ctl(target, "start"))
	{
		if (now() > deadline)
		{
			violation(LIVENESS, "a server does not start again");
			abandoned = true;
			return;
		}
		rest(50 * MS);
	}
}

/* Waits until the server lets us in again. */
static bool
reconnect(void)
{
	Time		deadline = now() + COME_BACK;

	PQfinish(control);
	while ((control = try_connect(&primary, "faults")) == NULL)
	{
		if (now() > deadline)
		{
			violation(LIVENESS, "the server does not come back");
			abandoned = true;
			return false;
		}
		rest(20 * MS);
	}
	return true;
}

/* A random process of the server, or 0. */
static pid_t
choose(const char *condition)
{
	char		sql[500];
	PGresult   *result;
	pid_t		pid = 0;

	snprintf(sql, sizeof(sql), "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND %s ORDER BY pid", condition);
	if (PQstatus(control) != CONNECTION_OK && !reconnect())
		return 0;
	result = PQexec(control, sql);
	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > 0)
		pid = atoi(PQgetvalue(result, roll(PQntuples(result)), 0));
	PQclear(result);
	if (pid != 0 && !is_child(pid, postmaster_of(&primary)))
		pid = 0;
	return pid;
}

#define CLIENTS		"backend_type = 'client backend'"
#define BACKGROUND	"backend_type LIKE 'event_store%'"

static void
kill_9(pid_t pid)
{
	if (pid == 0)
		return;
	crashes++;
	kill(pid, SIGKILL);
	/* The postmaster then ends them all, us too. */
	while (!abandoned && PQstatus(control) == CONNECTION_OK)
		PQclear(PQexec(control, "SELECT pg_sleep(0.01)"));
	(void) reconnect();
}

static void
kill_backend(void)
{
	kill_9(choose(CLIENTS));
}

static void
kill_background(void)
{
	kill_9(choose(BACKGROUND));
}

static void
kill_postmaster(void)
{
	pid_t		pid = postmaster_of(&primary);

	if (pid <= 1)
		return;
	crashes++;
	if (kill(pid, SIGKILL) == 0)
	{
		start(&primary);
		(void) reconnect();
	}
}

static void
shut_down(void)
{
	crashes++;
	(void) pg_ctl(&primary, "-m immediate stop");
	start(&primary);
	(void) reconnect();
}

/* Anybody, also the WAL writer and the checkpointer. */
static void
freeze(void)
{
	pid_t		pid = choose(roll(3) ? CLIENTS : "backend_type NOT IN ('client backend', 'walsender')");

	if (pid == 0)
		return;
	kill(pid, SIGSTOP);
	rest((300 + roll(1200)) * MS);
	kill(pid, SIGCONT);
}

static void
signal_by_sql(const char *function, const char *whom)
{
	char		sql[200];
	pid_t		pid = choose(whom);

	snprintf(sql, sizeof(sql), "SELECT %s(%d)", function, pid);
	if (pid != 0)
		PQclear(PQexec(control, sql));
}

static void
terminate(void)
{
	signal_by_sql("pg_terminate_backend", roll(2) ? CLIENTS : BACKGROUND);
}

static void
cancel(void)
{
	signal_by_sql("pg_cancel_backend", roll(4) ? CLIENTS : BACKGROUND);
}

static void
exhaust_connections(void)
{
	PGconn	   *conns[HOARD];
	int			n = 0;

	while (n < HOARD && (conns[n] = try_connect(&primary, "hoard")) != NULL)
		n++;
	rest(300 * MS);
	while (n > 0)
		PQfinish(conns[--n]);
}

static void
crash_standby(void)
{
	if (standby.host == NULL)
		return;
	(void) pg_ctl(&standby, "-m immediate stop");
	start(&standby);
}

/* Each one before any comes again, in an order of their own. */
static int
next_fault(void)
{
	static int	times[KINDS];
	int			best = -1;

	for (int i = 0; i < KINDS; i++)
		if (on[i] && kinds[i].inject && (best < 0 || times[i] < times[best] || (times[i] == times[best] && roll(2))))
			best = i;
	if (best >= 0)
		times[best]++;
	return best;
}

static void *
inject(void *arg)
{
	(void) arg;
	while (running && !abandoned)
	{
		int			i = next_fault();
		Time		begun;

		rest((100 + roll(700)) * MS);
		if (!running || i < 0)
			continue;
		begun = now();
		kinds[i].inject();
		injected[i]++;
		tried[i]++;
		printf("fault: %s, over after %.1f s\n", kinds[i].name, (double) (now() - begun) / SECOND);
	}
	PQfinish(control);
	control = NULL;
	return NULL;
}

/* From now on, those of the list, which is separated by "+". */
void
faults_begin(const char *list)
{
	char	   *copy = strdup(list);

	errors[0] = '\0';
	for (int i = 0; i < KINDS; i++)
	{
		on[i] = false;
		tried[i] = 0;
	}
	for (char *name = strtok(copy, "+"); name; name = strtok(NULL, "+"))
	{
		bool		found = strcmp(name, "none") == 0;

		for (int i = 0; i < KINDS; i++)
			if (strcmp(kinds[i].name, name) == 0)
			{
				on[i] = found = true;
				strcat(strcat(errors, " "), kinds[i].errors);
			}
		if (!found)
		{
			fprintf(stderr, "stress: no fault is named \"%s\"\n", name);
			exit(2);
		}
	}
	free(copy);
	randomness = seed ^ UINT64_C(0xA5A5A5A5A5A5A5A5) ^ ops_begun();
	if (!reconnect())
		return;
	running = true;
	pthread_create(&thread, NULL, inject, NULL);
}

/* Has each of the round's faults come once? */
bool
faults_tried(void)
{
	for (int i = 0; i < KINDS; i++)
		if (on[i] && kinds[i].inject && tried[i] == 0)
			return false;
	return true;
}

/* When this returns the server is up, and nobody is stopped. */
void
faults_end(void)
{
	if (!running)
		return;
	running = false;
	pthread_join(thread, NULL);
}

/*
 * The primary dies, and does not come back; everybody goes to the standby.  Which
 * has all that was acknowledged, since it was synchronous.
 */
void
fail_over(void)
{
	crashes++;
	(void) pg_ctl(&primary, "-m immediate stop");
	if (!pg_ctl(&standby, "promote"))
	{
		violation(LIVENESS, "the standby cannot be promoted");
		abandoned = true;
		return;
	}
	primary.data = standby.data;
	primary.log = standby.log;
	primary.host = standby.host;
}

int64_t
faults_injected(int *count, const char ***names, const int64_t **counts)
{
	static const char *list[KINDS];
	int64_t		sum = 0;

	for (int i = 0; i < KINDS; i++)
	{
		list[i] = kinds[i].name;
		sum += injected[i];
	}
	*count = KINDS - 2;			/* the last two count elsewhere */
	*names = list;
	*counts = injected;
	return sum;
}
