/*
 * feed.c
 *	  Reads the feed of a store, batch by batch, with the statement in a file.
 *
 *	  feed read FILE ROUND EVENTS SECONDS
 *	  feed follow FILE READERS [TIMES]
 *
 * The file's first line is "-- cursor: COLUMN...": the statement's parameters
 * $1, $2, ... are these columns' values in the last row that was read, 0 at the
 * start; "reader" is no column but the reader's name.
 *
 * read: reads so many events from the start, for so many seconds at most.
 * Prints events per second, and how many it has got.
 *
 * follow: so many readers, each over a connection of its own, that are always
 * at the head: whoever gets nothing looks again after PAUSE.  Prints "ready"
 * when all have got there.  For each line "count" on the standard input it
 * prints how many events the slowest has got; after "until N" it waits until
 * all have got N or more, or nothing has come for TOO_LATE, prints how many the
 * one got who has the fewest, and the one who has the most, and ends.  TIMES is a
 * file for the time, in seconds since 1970, when the first reader got each event.
 *
 * The connections come from the environment.
 */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAUSE		5000000		/* ns */
#define TOO_LATE	3.0			/* seconds without an event */
#define MAX_CURSOR	3
#define MAX_READERS	100

static char statement[4000];
static char cursor[MAX_CURSOR][64]; /* names */
static int	cursor_length;

typedef struct Reader
{
	PGconn	   *conn;
	char		name[32];
	char		values[MAX_CURSOR][64];
	atomic_long got;
	atomic_bool empty;			/* has been at the head */
	FILE	   *_Atomic times;
} Reader;

static Reader readers[MAX_READERS];
static atomic_bool finished;

static void
die(const char *what, PGconn *conn)
{
	fprintf(stderr, "feed: %s%s%s", what, conn ? ": " : "\n", conn ? PQerrorMessage(conn) : "");
	exit(1);
}

static double
seconds_of(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static double
now(void)
{
	return seconds_of(CLOCK_MONOTONIC);
}

static void
pause_reading(void)
{
	nanosleep(&(struct timespec) {.tv_nsec = PAUSE}, NULL);
}

static void
read_statement(const char *name)
{
	FILE	   *file = fopen(name, "r");
	char	   *words;

	if (file == NULL || fread(statement, 1, sizeof(statement) - 1, file) == 0)
		die(name, NULL);
	fclose(file);
	if (strncmp(statement, "-- cursor: ", 11) != 0 || (words = strchr(statement, '\n')) == NULL)
		die("the file does not begin with the cursor", NULL);
	*words = '\0';
	cursor_length = sscanf(statement + 11, "%63s %63s %63s", cursor[0], cursor[1], cursor[2]);
	memmove(statement, words + 1, strlen(words + 1) + 1);
}

static void
open_reader(Reader *reader, int round, int number)
{
	PGresult   *result;

	snprintf(reader->name, sizeof(reader->name), "reader-%d-%d", round, number);
	reader->conn = PQconnectdb("");
	if (PQstatus(reader->conn) != CONNECTION_OK)
		die("connect", reader->conn);
	result = PQprepare(reader->conn, "feed", statement, 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("prepare", reader->conn);
	PQclear(result);
	for (int i = 0; i < cursor_length; i++)
		strcpy(reader->values[i], strcmp(cursor[i], "reader") == 0 ? reader->name : "0");
}

/* Reads a batch; returns how many events were in it. */
static int
read_batch(Reader *reader)
{
	const char *values[MAX_CURSOR];
	PGresult   *result;
	int			count;

	for (int i = 0; i < cursor_length; i++)
		values[i] = reader->values[i];
	result = PQexecPrepared(reader->conn, "feed", cursor_length, values, NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("read", reader->conn);
	count = PQntuples(result);
	for (int i = 0; i < cursor_length && count > 0; i++)
	{
		int			column = PQfnumber(result, cursor[i]);

		if (column >= 0)
			snprintf(reader->values[i], sizeof(reader->values[i]), "%s", PQgetvalue(result, count - 1, column));
		else if (strcmp(cursor[i], "reader") != 0)
			die("the cursor is not in the result", NULL);
	}
	PQclear(result);
	for (int i = 0; reader->times && i < count; i++)
		fprintf(reader->times, "%.6f\n", seconds_of(CLOCK_REALTIME));
	reader->got += count;
	if (count == 0)
		reader->empty = true;
	return count;
}

static void
read_all(int round, long events, double seconds)
{
	double		start;
	double		end;

	open_reader(&readers[0], round, 0);
	start = now();
	do
	{
		if (read_batch(&readers[0]) == 0)
			break;
		end = now();
	} while (readers[0].got < events && end - start < seconds);
	end = now();
	printf("%.0f %ld\n", readers[0].got / (end - start), (long) readers[0].got);
	PQfinish(readers[0].conn);
}

static void *
run_reader(void *arg)
{
	Reader	   *reader = arg;

	while (!finished)
		if (read_batch(reader) == 0)
			pause_reading();
	return NULL;
}

static long
fewest(int count)
{
	long		least = readers[0].got;

	for (int i = 1; i < count; i++)
		if (readers[i].got < least)
			least = readers[i].got;
	return least;
}

static long
most(int count)
{
	long		largest = 0;

	for (int i = 0; i < count; i++)
		if (readers[i].got > largest)
			largest = readers[i].got;
	return largest;
}

static void
follow(int count, const char *times)
{
	pthread_t	threads[MAX_READERS];
	char		line[64];
	long		until;

	for (int i = 0; i < count; i++)
	{
		open_reader(&readers[i], 0, i);
		if (pthread_create(&threads[i], NULL, run_reader, &readers[i]) != 0)
			die("pthread_create", NULL);
	}
	for (int i = 0; i < count; i++)
		while (!readers[i].empty)
			pause_reading();
	for (int i = 0; i < count; i++)
		readers[i].got = 0;
	/* Nothing comes before "ready". */
	if (times && (readers[0].times = fopen(times, "w")) == NULL)
		die(times, NULL);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		if (sscanf(line, "until %ld", &until) == 1)
		{
			double		progress = now();
			long		before = -1;
			long		least;

			while ((least = fewest(count)) < until && now() - progress < TOO_LATE)
			{
				if (least > before)
					progress = now();
				before = least;
				pause_reading();
			}
			for (int i = 0; i < 4; i++)	/* does more come than should? */
				pause_reading();
			finished = true;
			for (int i = 0; i < count; i++)
				pthread_join(threads[i], NULL);
			printf("%ld %ld\n", fewest(count), most(count));
			for (int i = 0; i < count; i++)
				PQfinish(readers[i].conn);
			if (times && fclose(readers[0].times) != 0)
				die(times, NULL);
			return;
		}
		printf("%ld\n", fewest(count));
		fflush(stdout);
	}
	die("stopped before the end", NULL);
}

int
main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "read") == 0)
	{
		read_statement(argv[2]);
		read_all(atoi(argv[3]), atol(argv[4]), atof(argv[5]));
	}
	else if ((argc == 4 || argc == 5) && strcmp(argv[1], "follow") == 0 && atoi(argv[3]) > 0 && atoi(argv[3]) <= MAX_READERS)
	{
		read_statement(argv[2]);
		follow(atoi(argv[3]), argv[4]);
	}
	else
	{
		fprintf(stderr, "usage: feed read FILE ROUND EVENTS SECONDS | follow FILE READERS [TIMES]\n");
		return 2;
	}
	return 0;
}
