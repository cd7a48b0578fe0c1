/*
 * schedules.c
 *	  Runs all orders of the moves of two or three sessions, and checks each.
 *
 *	  schedules [-f] -l			lists what there is to run, one a line
 *	  schedules [-f] SCENARIO [nothing]		there must be no violation
 *	  schedules [-f] SCENARIO MISTAKE		there must be one
 *	  schedules [-f] SCENARIO shortest		looks for one likewise, without a mistake
 *	  schedules [-f] SCENARIO MISTAKE|nothing SCHEDULE
 *
 * -f: at all points, not only at those of the short form.  The connection comes
 * from the environment; the database must be a new one, of a server with a build
 * for tests (TEST_HOOKS=1), and for a scenario with the worker preloaded.
 *
 * A session's moves are to start its next statement, and to go on from the
 * point at which it has stopped.  A schedule is the order of the moves, written as
 * the sessions' names in a row.  It is not kept in memory where everybody was:
 * each schedule is run from its beginning, with new streams, and the next one is
 * the last one up to a move at which another session could have been chosen.
 *
 * With a MISTAKE, and with "shortest", the schedules come in the order of their switches: those in
 * which a session is left while it could go on, so that the first one that shows
 * the mistake is easy to understand.
 *
 * Exit status: 0 all is well, or the mistake shows; 1 a violation, or the mistake
 * does not show; 2 something else.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "schedules.h"

#define MAX_SWITCHES	6		/* in the search for a mistake */
#define NO_LIMIT		MAX_MOVES
#define MAX_TRIES		10		/* of a schedule whose beginning comes out differently */

/* Where a session is. */
typedef struct Place
{
	State		state;
	int			point;
	int			next;
} Place;

/* Who could move, the one first who moved before; and who did. */
typedef struct Move
{
	int			noptions;
	int			options[MAX_SESSIONS];
	int			chosen;
	bool		can_stay;		/* another one than the first is a switch */
	int			switches;		/* before this move */

	/* to tell it */
	int			op;				/* of the mover */
	int			from;			/* the point, or 0: it started the statement */
	Place		after[MAX_SESSIONS];
} Move;

const Scenario *scenario;
long		serial;
int			nmoves;
int64_t		base;

static Move moves[MAX_MOVES];
static int	nfixed;				/* moves that are chosen already */
static int	most_moves;
static long deadlocks;
static long retries;

void
die(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	fprintf(stderr, "schedules: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(2);
}

/*
 * The locks of streams are taken in the order of their names' hashes: that of
 * a first, in all schedules.
 */
static void
order_streams(void)
{
	PGresult   *result = queryf("SELECT n FROM generate_series(%ld, %ld) n"
								" WHERE hashtext('a-' || n)::bigint & 4294967295 < hashtext('b-' || n)::bigint & 4294967295"
								" ORDER BY n LIMIT 1", serial, serial + 100);

	serial = atol(PQgetvalue(result, 0, 0));
	PQclear(result);
}

/* The base is not looked for by the feed, which is what is tried. */
static void
begin_schedule(void)
{
	PGresult   *result;

	serial++;
	if (strstr(scenario->script, "multi") || strstr(scenario->script, "checked"))
		order_streams();
	nmoves = -1;
	reset_sessions();
	run_setup();
	result = query("SELECT position, event_id FROM ev ORDER BY position DESC LIMIT 1");
	base = PQntuples(result) ? atoll(PQgetvalue(result, 0, 0)) : 0;
	for (int i = 0; i < nsessions; i++)
	{
		sessions[i].checkpoint = base;
		snprintf(sessions[i].checkpoint_id, sizeof(sessions[i].checkpoint_id), "%s",
				 PQntuples(result) ? PQgetvalue(result, 0, 1) : "");
	}
	PQclear(result);
	settle();
	nmoves = 0;
}

static bool
enabled(const Session *session)
{
	return session->state == STATE_READY || session->state == STATE_STOPPED;
}

/* False: there is nobody. */
static bool
find_options(Move *move)
{
	Move	   *before = nmoves > 0 ? &moves[nmoves - 1] : NULL;
	int			last = before ? before->options[before->chosen] : -1;

	memset(move, 0, sizeof(*move));
	if (before)
		move->switches = before->switches + (before->can_stay && before->chosen > 0);
	if (last >= 0 && enabled(&sessions[last]))
	{
		move->can_stay = true;
		move->options[move->noptions++] = last;
	}
	for (int i = 0; i < nsessions; i++)
		if (i != last && enabled(&sessions[i]))
			move->options[move->noptions++] = i;
	return move->noptions > 0;
}

static void
make_move(Move *move)
{
	Session    *session = &sessions[move->options[move->chosen]];

	if (session->state == STATE_READY)
	{
		move->op = session->next;
		start_op(session);
	}
	else
	{
		move->op = session->next - 1;
		move->from = session->point;
		let_go(session);
	}
	settle();
	if (scenario->worker)
		check_published();
	for (int i = 0; i < nsessions; i++)
		move->after[i] = (Place) {sessions[i].state, sessions[i].point, sessions[i].next};
	nmoves++;
}

/* Nobody can move.  Those who have not ended wait; false: there are none. */
static bool
await_others(void)
{
	for (int i = 0; i < nsessions; i++)
		if (sessions[i].state == STATE_BLOCKED)
		{
			if (!await_change(STATE_BLOCKED))
				violate("sessions wait for each other, and nothing ends that");
			return true;
		}
	for (int i = 0; i < nsessions; i++)
		if (sessions[i].conn && sessions[i].state == STATE_ASLEEP)
		{
			PGresult   *result = query("SELECT max(position) FROM ev");
			bool		there = atoll(PQgetvalue(result, 0, 0)) > base;

			PQclear(result);
			if (!there)
				cancel(&sessions[i]);
			else if (!await_change(STATE_ASLEEP))
				violate("%c waits for events, and is not woken", sessions[i].name);
			return true;
		}
	return false;
}

/*
 * Runs one schedule to its end: first the fixed moves, then always the first
 * option.  False: the fixed part has come out differently, as when a deadlock
 * has another victim.
 */
static bool
run_schedule(void)
{
	bool		same = true;

	begin_schedule();
	while (!violated)
	{
		Move		move;

		if (nmoves == MAX_MOVES)
			die("schedule %ld does not end", serial);
		if (!find_options(&move))
		{
			if (!await_others())
				break;
			continue;
		}
		if (same && nmoves < nfixed)
		{
			same = move.noptions == moves[nmoves].noptions &&
				memcmp(move.options, moves[nmoves].options, sizeof(move.options)) == 0;
			move.chosen = same ? moves[nmoves].chosen : 0;
		}
		moves[nmoves] = move;
		make_move(&moves[nmoves]);
	}
	if (!violated)
		check_schedule();
	if (nmoves > most_moves)
		most_moves = nmoves;
	for (int i = 0; i < nsessions; i++)
		for (int j = 0; j < sessions[i].nops; j++)
			deadlocks += strcmp(sessions[i].ops[j].sqlstate, "40P01") == 0;
	return same;
}

/* The same again and again, until it has come out as it was to. */
static void
run_surely(void)
{
	static Move fixed[MAX_MOVES];

	memcpy(fixed, moves, sizeof(Move) * nfixed);
	for (int try = 0; !run_schedule() && !violated; try++)
	{
		memcpy(moves, fixed, sizeof(Move) * nfixed);
		retries++;
		if (try == MAX_TRIES)
			die("schedule %ld comes out differently each time", serial);
	}
}

/* Fixes the moves of the next schedule with so many switches at most. */
static bool
next_schedule(int max_switches)
{
	for (int i = nmoves - 1; i >= 0; i--)
		if (moves[i].chosen + 1 < moves[i].noptions &&
			moves[i].switches + moves[i].can_stay <= max_switches)
		{
			moves[i].chosen++;
			nfixed = i + 1;
			return true;
		}
	return false;
}

/* Runs schedules until there is none left, or one is violated; how many. */
static long
explore(int max_switches)
{
	long		count = 0;

	nfixed = 0;
	do
	{
		run_surely();
		count++;
	} while (!violated && next_schedule(max_switches));
	return count;
}

static void
tell_place(const Session *session, const Place *place)
{
	const Op   *op = &session->ops[place->next - 1];

	switch (place->state)
	{
		case STATE_STOPPED:
			printf("stops at %s\n", point_name(session, place->point));
			break;
		case STATE_BLOCKED:
			printf("waits for a lock\n");
			break;
		case STATE_ASLEEP:
			printf("sleeps\n");
			break;
		case STATE_RUNNING:
			printf("runs\n");
			break;
		default:
			printf("ends%s%s\n", op->outcome[0] ? ": " : "", op->outcome);
	}
}

static const char *
doing(const Session *session, int op)
{
	return session->conn ? session->ops[op].text : "the worker";
}

/* In words: each move, and what else has become of it. */
static void
tell_schedule(void)
{
	for (int i = 0; i < nmoves; i++)
	{
		Move	   *move = &moves[i];
		int			mover = move->options[move->chosen];

		printf("    %c  %-20s %s", sessions[mover].name, doing(&sessions[mover], move->op),
			   move->from ? "goes on, " : "");
		tell_place(&sessions[mover], &move->after[mover]);
		for (int j = 0; j < nsessions; j++)
		{
			const Place *now = &move->after[j];
			const Place *then = i > 0 ? &moves[i - 1].after[j] : NULL;

			if (j == mover || then == NULL ||
				(now->state == then->state && now->point == then->point))
				continue;
			printf("       %c  %-17s ", sessions[j].name, doing(&sessions[j], now->next - 1));
			tell_place(&sessions[j], now);
		}
	}
}

static void
tell_violation(void)
{
	printf("  %s\n  schedule ", violation);
	for (int i = 0; i < nmoves; i++)
		printf("%c", sessions[moves[i].options[moves[i].chosen]].name);
	printf(", %d switches\n", nmoves > 0 ? moves[nmoves - 1].switches + (moves[nmoves - 1].can_stay && moves[nmoves - 1].chosen > 0) : 0);
	tell_schedule();
}

/* One schedule, as it was printed; what is not written there comes in the usual order. */
static void
repeat(const char *schedule)
{
	begin_schedule();
	while (!violated)
	{
		Move	   *move = &moves[nmoves];

		if (nmoves == MAX_MOVES)
			die("the schedule does not end");
		if (!find_options(move))
		{
			if (!await_others())
				break;
			continue;
		}
		if (*schedule)
		{
			while (move->chosen < move->noptions && sessions[move->options[move->chosen]].name != *schedule)
				move->chosen++;
			if (move->chosen == move->noptions)
				die("%c cannot make move %d of the schedule", *schedule, nmoves + 1);
			schedule++;
		}
		make_move(move);
	}
	if (!violated)
		check_schedule();
	tell_schedule();
	printf("  %s\n", violated ? violation : "all is well");
}

static void
list_jobs(bool full)
{
	for (const Scenario *s = scenarios; s->name; s++)
		if (full || s->short_points)
			printf("%s %s nothing\n", s->worker ? "worker" : "plain", s->name);
	for (const Mistake *m = mistakes; m->name; m++)
		if (full || m->in_short)
			printf("%s %s %s\n", find_scenario(m->scenario)->worker ? "worker" : "plain", m->scenario, m->name);
}

static double
seconds_since(const struct timespec *start)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	return end.tv_sec - start->tv_sec + (end.tv_nsec - start->tv_nsec) / 1e9;
}

/* All schedules; there must be no violation. */
static int
run_scenario(void)
{
	struct timespec start;
	long		count;

	clock_gettime(CLOCK_MONOTONIC, &start);
	count = explore(NO_LIMIT);
	printf("%-26s %6ld schedules of up to %2d moves, %5.1f s", scenario->name, count, most_moves, seconds_since(&start));
	if (deadlocks)
		printf(", %ld deadlocks", deadlocks);
	if (retries)
		printf(", %ld repeated", retries);
	printf("%s\n", violated ? ": VIOLATED" : "");
	if (violated)
		tell_violation();
	return violated;
}

/* There must be one: the one with the fewest switches. */
static int
find_violation(const char *mistake)
{
	struct timespec start;
	long		count = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int switches = 0; !violated && switches <= MAX_SWITCHES; switches++)
		count += explore(switches);
	printf("%s, by %s: %s schedule %ld, %.1f s\n", mistake, scenario->name,
		   violated ? "found by" : "NOT FOUND until", count, seconds_since(&start));
	if (violated)
		tell_violation();
	return !violated;
}

int
main(int argc, char **argv)
{
	bool		full = false;
	bool		shortest;
	const char *mistake = NULL;

	if (argc > 1 && strcmp(argv[1], "-f") == 0)
	{
		full = true;
		argv++;
		argc--;
	}
	if (argc == 2 && strcmp(argv[1], "-l") == 0)
	{
		list_jobs(full);
		return 0;
	}
	if (argc < 2 || argc > 4)
		die("usage: schedules [-f] -l | SCENARIO [nothing|shortest|MISTAKE [SCHEDULE]]");
	setvbuf(stdout, NULL, _IOLBF, 0);
	scenario = find_scenario(argv[1]);
	shortest = argc > 2 && strcmp(argv[2], "shortest") == 0;
	if (argc > 2 && !shortest && strcmp(argv[2], "nothing") != 0)
		mistake = argv[2];
	parse_script(scenario);
	open_sessions(scenario, scenario_points(scenario, full), mistake);
	if (argc == 4)
	{
		repeat(argv[3]);
		return violated;
	}
	return mistake || shortest ? find_violation(argv[2]) : run_scenario();
}
