/*
 * client.c
 *	  One session of the fuzzer: does things in every way there is, and checks it
 *	  after each.
 *
 * What must not happen: an error of class XX, an own error without DETAIL and HINT,
 * a warning of a leak, the end of the session, a lock that is left behind.
 */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY		60			/* statements that are kept to be printed */
#define LOCKS_EVERY	5			/* units between two looks at the locks */
#define MEND_EVERY	60			/* units between two calls of fuzz.mend() */
#define MAX_FAILURES	3		/* then the client gives up */

static PGconn *conn;			/* the session */
static PGconn *watch;			/* looks at its locks */
static int	number;				/* of this client */
static int	failures;

static char *history[HISTORY];
static int	nhistory;

/* What COPY is to send.  Apart, since it may or may not come to that. */
static uint64_t copy_seed;

static void connect_both(void);
static void unit(void);
static bool run(const char *sql);
static bool execute(const char *sql, bool extended, bool binary);
static bool runf(const char *format,...) __attribute__((format(printf, 1, 2)));
static void check_locks(void);

static void
failed(const char *format,...)
{
	va_list		args;

	flockfile(stdout);
	printf("client %d: FAILED: ", number);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\nwhat led to it, the last %d statements of this session:\n", HISTORY);
	for (int i = nhistory > HISTORY ? nhistory - HISTORY : 0; i < nhistory; i++)
		printf("    %s\n", history[i % HISTORY]);
	fflush(stdout);
	funlockfile(stdout);
	failures++;
	__sync_fetch_and_add(&counts->failures, 1);
}

/* Until so many calls have been made by all, or by this one alone. */
int
client(int client_number, uint64_t seed, long calls)
{
	number = client_number;
	seed_random(seed * 1000003 + number);
	connect_both();
	for (long n = 1; counts->calls < calls && failures < MAX_FAILURES; n++)
	{
		unit();
		if (PQstatus(conn) == CONNECTION_OK && PQtransactionStatus(conn) != PQTRANS_IDLE)
			run("ROLLBACK");
		run("RESET SESSION AUTHORIZATION");
		run("RESET ALL");
		if (n % LOCKS_EVERY == 0)
			check_locks();
		if (n % MEND_EVERY == 0)
		{
			run("CALL fuzz.mend()");
			run("DISCARD ALL");
		}
		if (PQstatus(conn) != CONNECTION_OK)
			break;
	}
	PQfinish(conn);
	PQfinish(watch);
	return failures > 0;
}

/* Warnings come here. */
static void
receive_notice(void *arg, const PGresult *result)
{
	const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	(void) arg;
	if (text != NULL &&
		(strstr(text, "leak") || strstr(text, "still referenced") || strstr(text, "not closed") || strstr(text, "you don't own a lock")))
		failed("warning: %s", text);
	if (state != NULL && strncmp(state, "XX", 2) == 0)
		failed("%s: %s", state, text);
}

static void
connect_both(void)
{
	const char *const keywords[] = {"application_name", "options", NULL};
	const char *const values[] = {"fuzz", "-c statement_timeout=250ms -c lock_timeout=100ms", NULL};

	conn = PQconnectdbParams(keywords, values, 0);
	watch = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		fatal("cannot connect: %s", PQerrorMessage(conn));
	if (PQstatus(watch) != CONNECTION_OK)
		fatal("cannot connect: %s", PQerrorMessage(watch));
	PQsetNoticeReceiver(conn, receive_notice, NULL);
}

/* Keeps the statement, with what came of it. */
static void
remember(const char *sql, const char *outcome)
{
	PQExpBufferData buf;

	initPQExpBuffer(&buf);
	appendPQExpBuffer(&buf, "%.2000s;  -- %s", sql, outcome);
	for (char *p = buf.data; *p != '\0'; p++)
		if (*p == '\n')
			*p = ' ';
	free(history[nhistory % HISTORY]);
	history[nhistory++ % HISTORY] = buf.data;
}

static void
check_error(const char *sql, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	char		outcome[300];

	snprintf(outcome, sizeof(outcome), "%s %s", state ? state : "no SQLSTATE", text ? text : PQresultErrorMessage(result));
	remember(sql, outcome);
	counts->errors++;
	if (state == NULL)
	{
		if (PQstatus(conn) == CONNECTION_OK)
			failed("an error without SQLSTATE: %s", PQresultErrorMessage(result));
		return;
	}
	if (strncmp(state, "XX", 2) == 0)
		failed("an internal error: %s: %s (%s:%s)", state, text, PQresultErrorField(result, PG_DIAG_SOURCE_FILE), PQresultErrorField(result, PG_DIAG_SOURCE_LINE));
	if (strncmp(state, "SE", 2) == 0 && !PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL) && !PQresultErrorField(result, PG_DIAG_MESSAGE_HINT))
		failed("neither DETAIL nor HINT: %s: %s", state, text);
}

static void
copy_in(void)
{
	PQExpBufferData buf;
	uint64_t	saved = seed_random(copy_seed);
	int			lines = 1 + below(4);

	initPQExpBuffer(&buf);
	for (int i = 0; i < lines; i++)
		copy_line(&buf);
	PQputCopyData(conn, buf.data, buf.len);
	PQputCopyEnd(conn, chance(3) ? "given up" : NULL);
	termPQExpBuffer(&buf);
	copy_seed = seed_random(saved);
}

static bool
run(const char *sql)
{
	return execute(sql, false, false);
}

/*
 * Runs it to its end, by one protocol or the other; returns whether all went well.
 * Takes no random numbers.
 */
static bool
execute(const char *sql, bool extended, bool binary)
{
	bool		good = true;
	PGresult   *result;
	int			sent;

	if (PQstatus(conn) != CONNECTION_OK)
		return false;
	sent = extended ? PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, binary) : PQsendQuery(conn, sql);
	if (!sent)
		failed("cannot send: %s", PQerrorMessage(conn));
	while ((result = PQgetResult(conn)) != NULL)
	{
		switch (PQresultStatus(result))
		{
			case PGRES_COPY_IN:
				copy_in();
				break;
			case PGRES_COPY_OUT:
				for (char *row; PQgetCopyData(conn, &row, 0) > 0;)
					PQfreemem(row);
				break;
			case PGRES_FATAL_ERROR:
				check_error(sql, result);
				good = false;
				break;
			case PGRES_BAD_RESPONSE:
				failed("a bad response: %s", PQerrorMessage(conn));
				good = false;
				break;
			default:
				break;
		}
		PQclear(result);
		if (PQstatus(conn) != CONNECTION_OK)
		{
			failed("the session has ended: %s", PQerrorMessage(conn));
			return false;
		}
	}
	for (PGnotify *notify; (notify = PQnotifies(conn)) != NULL;)
		PQfreemem(notify);
	if (good)
		remember(sql, "ok");
	return good;
}

static bool
runf(const char *format,...)
{
	char		sql[200];
	va_list		args;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	return run(sql);
}

/* A session without a transaction has no locks. */
static void
check_locks(void)
{
	char		sql[500];
	PGresult   *result;

	if (PQstatus(conn) != CONNECTION_OK)
		return;
	/* SIREAD locks outlive the transaction by design. */
	snprintf(sql, sizeof(sql),
			 "SELECT string_agg(concat_ws(' ', locktype, mode, relation::regclass::text, classid, objid, objsubid), ', ')"
			 " FROM pg_locks WHERE pid = %d AND mode <> 'SIReadLock' AND locktype <> 'virtualxid'", PQbackendPID(conn));
	result = PQexec(watch, sql);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		failed("cannot look at the locks: %s", PQerrorMessage(watch));
	else if (!PQgetisnull(result, 0, 0))
		failed("locks are left: %s", PQgetvalue(result, 0, 0));
	PQclear(result);
	__sync_fetch_and_add(&counts->checks, 1);
}

/* Runs a statement that calls something, and counts it. */
static bool
call(const char *sql)
{
	bool		skipped = PQtransactionStatus(conn) == PQTRANS_INERROR;
	bool		extended = chance(30);
	bool		good;

	/*
	 * libpq gets out of step where COPY fails before it has read the Sync that the
	 * extended protocol sends along: another one goes behind the data.
	 */
	if (strstr(sql, "FROM STDIN") != NULL)
		extended = false;
	copy_seed = draw();
	good = execute(sql, extended, chance(30));
	if (skipped)
		return false;
	__sync_fetch_and_add(&counts->calls, 1);
	for (int i = 0; i < num_last_called; i++)
	{
		counts->called[last_called[i]]++;
		if (good)
			counts->succeeded[last_called[i]]++;
	}
	return good;
}

static bool
call_template(const char *template)
{
	PQExpBufferData buf;
	bool		good;

	initPQExpBuffer(&buf);
	num_last_called = 0;
	expand(&buf, template);
	good = call(buf.data);
	termPQExpBuffer(&buf);
	return good;
}

static bool
call_random(void)
{
	PQExpBufferData buf;
	bool		good;

	initPQExpBuffer(&buf);
	num_last_called = 0;
	random_statement(&buf);
	good = call(buf.data);
	termPQExpBuffer(&buf);
	return good;
}

static void
begin(void)
{
	static const char *const levels[] = {
		"", "", "", "", "", "ISOLATION LEVEL REPEATABLE READ", "ISOLATION LEVEL SERIALIZABLE", "READ ONLY", "ISOLATION LEVEL REPEATABLE READ READ ONLY",
		"ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"
	};

	runf("BEGIN %s", any_of(levels));
}

static void
end(void)
{
	int			form = below(100);

	if (form < 55)
		run("COMMIT");
	else if (form < 93)
		run("ROLLBACK");
	else
	{
		if (runf("PREPARE TRANSACTION 'fuzz %d'", number))
		{
			check_locks();
			runf("%s PREPARED 'fuzz %d'", form % 2 ? "COMMIT" : "ROLLBACK", number);
		}
	}
}

/* Several statements, some in savepoints that are taken back. */
static void
transaction(void)
{
	int			n = 1 + below(6);

	begin();
	for (int i = 0; i < n; i++)
	{
		bool		savepoint = chance(85);
		bool		back = chance(25);

		if (savepoint)
			run("SAVEPOINT s");
		call_random();
		if (savepoint && (back || PQtransactionStatus(conn) == PQTRANS_INERROR))
			run("ROLLBACK TO s");
		else if (savepoint && i % 2)
			run("RELEASE s");
	}
	end();
}

static void
cursor(void)
{
	static const char *const moves[] = {
		"FETCH 1 FROM c", "FETCH 2 FROM c", "FETCH ALL FROM c", "FETCH BACKWARD 1 FROM c", "MOVE FORWARD ALL IN c", "FETCH FIRST FROM c", "FETCH 0 FROM c", "CLOSE c"
	};
	PQExpBufferData buf;
	int			n = 1 + below(5);
	bool		hold = chance(20);

	initPQExpBuffer(&buf);
	num_last_called = 0;
	appendPQExpBuffer(&buf, "DECLARE c %sCURSOR %sFOR ", chance(30) ? "SCROLL " : "", hold ? "WITH HOLD " : "");
	expand(&buf, random_query());
	begin();
	call(buf.data);
	for (int i = 0; i < n; i++)
	{
		bool		savepoint = chance(80);

		if (savepoint)
			run("SAVEPOINT s");
		run(any_of(moves));
		if (chance(30))
			call_random();
		if (savepoint && (chance(50) || PQtransactionStatus(conn) == PQTRANS_INERROR))
			run("ROLLBACK TO s");
	}
	end();
	if (hold)
		run("FETCH 1 FROM c");
	run("CLOSE ALL");
	termPQExpBuffer(&buf);
}

/* The same call several times, with other arguments, by one plan. */
static void
prepared(void)
{
	const Function *function;
	PQExpBufferData buf;
	int			n = 2 + below(4);
	bool		transaction = chance(40);

	num_last_called = 0;
	function = random_function();
	initPQExpBuffer(&buf);
	if (transaction)
		begin();
	runf("SET plan_cache_mode = %s", chance(70) ? "force_generic_plan" : "auto");
	appendPQExpBufferStr(&buf, "PREPARE p");
	for (int i = 0; i < function->nargs; i++)
		appendPQExpBuffer(&buf, "%s%s", i ? ", " : "(", function->types[i]);
	appendPQExpBuffer(&buf, "%s AS SELECT %s%s(", function->nargs > 0 ? ")" : "", chance(70) ? "* FROM " : "", function->name);
	for (int i = 0; i < function->nargs; i++)
		appendPQExpBuffer(&buf, "%s$%d", i ? ", " : "", i + 1);
	appendPQExpBufferStr(&buf, ")");
	run(buf.data);
	for (int i = 0; i < n; i++)
	{
		resetPQExpBuffer(&buf);
		appendPQExpBufferStr(&buf, "EXECUTE p");
		called = function;
		for (int k = 0; k < function->nargs; k++)
		{
			appendPQExpBufferStr(&buf, k ? ", " : "(");
			value(&buf, function->types[k], function->names[k]);
		}
		if (function->nargs > 0)
			appendPQExpBufferChar(&buf, ')');
		if (transaction)
			run("SAVEPOINT s");
		call(buf.data);
		if (transaction && PQtransactionStatus(conn) == PQTRANS_INERROR)
			run("ROLLBACK TO s");
	}
	if (transaction)
		end();
	run("DEALLOCATE ALL");
	termPQExpBuffer(&buf);
}

/*
 * DDL, with something before and behind.  One at a time, since the server itself
 * has internal errors ("tuple concurrently updated") where catalogs are changed
 * side by side without a lock on a table.
 */
static void
change(void)
{
	PQExpBufferData buf;
	bool		roll_back;

	initPQExpBuffer(&buf);
	num_last_called = 0;
	random_ddl(&buf, &roll_back);
	begin();
	run("SELECT pg_advisory_xact_lock(1)");
	if (chance(40))
		call_random();
	call(buf.data);
	if (chance(60))
		call_random();
	run(roll_back ? "ROLLBACK" : "COMMIT");
	call_random();
	termPQExpBuffer(&buf);
}

static void
trigger(void)
{
	const Function *function;
	char	   *template;

	do
		function = random_function();
	while (!function->trigger && !function->event_trigger && chance(99));
	template = strdup(trigger_template(function));
	run("BEGIN");
	run("SELECT pg_advisory_xact_lock(1)");
	for (char *part = strtok(template, ";"); part != NULL; part = strtok(NULL, ";"))
		call_template(part);
	run("ROLLBACK");
	free(template);
}

static void
unit(void)
{
	static const char *const users[] = {
		"postgres", "postgres", "postgres", "postgres", "postgres", "fuzz_owner", "fuzz_owner", "fuzz_owner", "fuzz_reader", "fuzz_reader",
		"fuzz_nobody", "fuzz_other"
	};
	int			form = below(100);

	runf("SET SESSION AUTHORIZATION %s", any_of(users));
	if (chance(15))
		run(random_setting());
	if (form < 45)
		call_random();
	else if (form < 65)
		transaction();
	else if (form < 76)
		cursor();
	else if (form < 88)
		prepared();
	else if (form < 96)
		change();
	else
		trigger();
}
