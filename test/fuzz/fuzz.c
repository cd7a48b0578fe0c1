/*
 * fuzz.c
 *	  Calls everything in the schema event_store, with random arguments, in every
 *	  way that SQL has, from several sessions at once; see fuzz.h.
 *
 *	  fuzz SEED CALLS CLIENTS
 *
 * Connects as the environment says, as a superuser, to a database that setup.sql
 * has been run in.  The last line says what was done; the exit status is 0 if
 * nothing was found.
 */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* From so many calls on, no function may have been left out. */
#define ENOUGH_CALLS	20000

Counts	   *counts;
Function   *functions;
int			num_functions;
char	  **views;
int			num_views;
char	   *dropped_oid;

void
fatal(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

static PGresult *
query(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fatal("%s: %s", sql, PQerrorMessage(conn));
	return result;
}

/* The lines of a text. */
static char **
split(const char *text, int n)
{
	char	  **lines = calloc(n + 1, sizeof(char *));
	char	   *copy = strdup(text);

	for (int i = 0; i < n; i++)
	{
		lines[i] = copy;
		if ((copy = strchr(copy, '\n')) != NULL)
			*copy++ = '\0';
		else
			copy = lines[i] + strlen(lines[i]);
	}
	return lines;
}

/* What there is to call and to look at. */
static void
find_everything(void)
{
	PGconn	   *conn = PQconnectdb("");
	PGresult   *result;

	if (PQstatus(conn) != CONNECTION_OK)
		fatal("cannot connect: %s", PQerrorMessage(conn));
	result = query(conn,
				   "SELECT format('%I.%I', n.nspname, p.proname), p.prokind, p.prorettype::regtype, p.pronargs, p.pronargdefaults,"
				   " (SELECT coalesce(string_agg(format_type(t, NULL), E'\\n' ORDER BY i), '') FROM unnest(p.proargtypes) WITH ORDINALITY a (t, i)),"
				   " (SELECT coalesce(string_agg(coalesce(a.name, ''), E'\\n' ORDER BY i), '')"
				   "    FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes, p.proargnames) WITH ORDINALITY a (t, mode, name, i)"
				   "   WHERE coalesce(a.mode, 'i') IN ('i', 'b', 'v')),"
				   " 'internal'::regtype = ANY (p.proargtypes)"
				   " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
				   " WHERE n.nspname = 'event_store' ORDER BY p.proname, p.proargtypes::text");
	num_functions = PQntuples(result);
	if (num_functions == 0 || num_functions > MAX_FUNCTIONS)
		fatal("%d functions in the schema event_store", num_functions);
	functions = calloc(num_functions, sizeof(Function));
	for (int i = 0; i < num_functions; i++)
	{
		Function   *f = &functions[i];

		f->name = strdup(PQgetvalue(result, i, 0));
		f->kind = PQgetvalue(result, i, 1)[0];
		f->trigger = strcmp(PQgetvalue(result, i, 2), "trigger") == 0;
		f->event_trigger = strcmp(PQgetvalue(result, i, 2), "event_trigger") == 0;
		f->nargs = atoi(PQgetvalue(result, i, 3));
		f->ndefaults = atoi(PQgetvalue(result, i, 4));
		f->types = split(PQgetvalue(result, i, 5), f->nargs);
		f->names = split(PQgetvalue(result, i, 6), f->nargs);
		f->internal = PQgetvalue(result, i, 7)[0] == 't';
	}
	PQclear(result);

	result = query(conn,
				   "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
				   " WHERE n.nspname = 'event_store' AND c.relkind IN ('r', 'v') ORDER BY 1");
	num_views = PQntuples(result);
	views = calloc(num_views, sizeof(char *));
	for (int i = 0; i < num_views; i++)
		views[i] = strdup(PQgetvalue(result, i, 0));
	PQclear(result);

	result = query(conn, "SELECT oid FROM fuzz.dropped_oid");
	dropped_oid = strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	PQfinish(conn);
}

/*
 * Whether every function has been called, and has gone well at least once if it can:
 * trigger functions, and those of internal arguments, are not called for a result.
 */
static bool
all_reached(void)
{
	bool		good = true;

	for (int i = 0; i < num_functions; i++)
	{
		Function   *f = &functions[i];

		if (counts->called[i] == 0 ||
			(counts->succeeded[i] == 0 && !f->trigger && !f->event_trigger && !f->internal))
		{
			printf("%s has been called %ld times, never with success\n", f->name, counts->called[i]);
			good = false;
		}
	}
	return good;
}

int
main(int argc, char **argv)
{
	uint64_t	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	long		calls = argc > 2 ? atol(argv[2]) : 0;
	int			clients = argc > 3 ? atoi(argv[3]) : 0;
	time_t		start = time(NULL);
	bool		good = true;

	if (argc != 4 || calls < 1 || clients < 1)
		fatal("usage: fuzz SEED CALLS CLIENTS");
	find_everything();
	counts = mmap(NULL, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		fatal("no memory");
	fflush(NULL);
	for (int i = 0; i < clients; i++)
	{
		pid_t		pid = fork();

		if (pid < 0)
			fatal("cannot fork");
		if (pid == 0)
			exit(client(i, seed, calls));
	}
	for (int status; wait(&status) > 0;)
		good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (calls >= ENOUGH_CALLS && !all_reached())
		good = false;
	printf("fuzz: SEED=%llu, %d clients, %ld calls of %d functions, %ld errors, %ld looks at locks, %ld failures, %ld s\n",
		   (unsigned long long) seed, clients, counts->calls, num_functions, counts->errors, counts->checks, counts->failures,
		   (long) (time(NULL) - start));
	return good && counts->calls >= calls ? 0 : 1;
}
