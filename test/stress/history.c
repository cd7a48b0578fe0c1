/*
 * history.c
 *	  What the clients have done, and what was found to be wrong.
 *
 * Everything that an operation writes follows from its number and the seed: so
 * it can be sent again, and compared, without being kept.
 */
#include "stress.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPS		(INT64_C(1) << 24)
#define SHOWN		20			/* violations */

uint64_t	seed;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Op **ops;
static _Atomic int64_t nops;
static int64_t nevents;
static Conflict *conflict_list;
static int64_t nconflicts;
static int64_t conflicts_size;
static _Atomic int nviolations;
static _Atomic int64_t versions[STREAMS];

Op *
op_begin(OpKind kind, bool ids_given)
{
	Op		   *op = calloc(1, sizeof(Op));

	op->kind = kind;
	op->ids_given = ids_given;
	op->repeatable = ids_given && kind <= SEVERAL;
	op->answered = NEVER;
	op->outcome = OPEN;
	pthread_mutex_lock(&mutex);
	if (ops == NULL)
		ops = calloc(MAX_OPS, sizeof(Op *));
	op->serial = nops;
	if (op->serial >= MAX_OPS)
		abort();
	ops[op->serial] = op;
	nops++;
	pthread_mutex_unlock(&mutex);
	return op;
}

/* The pointer is good until the next one. */
Part *
op_part(Op *op, int stream, int64_t expected, int count)
{
	Part	   *part;

	op->parts = realloc(op->parts, sizeof(Part) * (op->nparts + 1));
	part = &op->parts[op->nparts++];
	*part = (Part) {.stream = stream, .expected = expected, .nevents = count};
	op->nevents += count;
	return part;
}

/* When it has all its parts, and before it is sent. */
void
op_number(Op *op)
{
	pthread_mutex_lock(&mutex);
	op->first_event = nevents;
	nevents += op->nevents;
	pthread_mutex_unlock(&mutex);
	op->asked = now();
	op->outcome = UNKNOWN;
}

void
op_done(Op *op, Time answered)
{
	op->answered = answered;
	op->outcome = DONE;
	for (int i = 0; i < op->nparts; i++)
		if (!op->parts[i].undone)
			learn_version(op->parts[i].stream, op->parts[i].last_version);
}

Op *
op_of(int64_t serial)
{
	return serial >= 0 && serial < nops ? ops[serial] : NULL;
}

int64_t
ops_begun(void)
{
	return nops;
}

int64_t
events_numbered(void)
{
	return nevents;
}

void
note_conflict(Conflict conflict)
{
	pthread_mutex_lock(&mutex);
	if (nconflicts == conflicts_size)
	{
		conflicts_size = conflicts_size * 2 + 1000;
		conflict_list = realloc(conflict_list, sizeof(Conflict) * conflicts_size);
	}
	conflict_list[nconflicts++] = conflict;
	pthread_mutex_unlock(&mutex);
	learn_version(conflict.stream, conflict.actual);
}

Conflict *
conflicts(int64_t *count)
{
	*count = nconflicts;
	return conflict_list;
}

void
violation(int invariant, const char *format,...)
{
	va_list		args;

	pthread_mutex_lock(&mutex);
	if (nviolations++ < SHOWN)
	{
		printf("VIOLATION of %d: ", invariant);
		va_start(args, format);
		vprintf(format, args);
		va_end(args);
		putchar('\n');
		fflush(stdout);
	}
	pthread_mutex_unlock(&mutex);
}

int
violations(void)
{
	return nviolations;
}

static uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

uint64_t
chain(uint64_t before, int64_t position, int64_t serial, int i)
{
	return mix(mix(mix(before ^ position) ^ serial) ^ i);
}

/* Looks random, so that entries fall all over the index. */
void
event_id(char *id, int64_t serial, int i)
{
	uint64_t	high = mix(seed ^ mix(serial));

	sprintf(id, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned) (high >> 32), (unsigned) (high >> 16) & 0xFFFF,
			(unsigned) high & 0xFFF, (unsigned) i & 0xFFF, (unsigned long long) serial);
}

/* As jsonb prints it, so that the text can be compared. */
void
event_data(char *data, int64_t serial, int i)
{
	sprintf(data, "{\"i\": %d, \"n\": %d, \"op\": %lld}", i, (int) (mix(seed ^ mix(serial * 4096 + i)) % 1000), (long long) serial);
}

/* The stream had at least this version when it was asked. */
int64_t
known_version(int stream)
{
	return versions[stream];
}

void
learn_version(int stream, int64_t version)
{
	int64_t		old = versions[stream];

	while (old < version && !__atomic_compare_exchange_n((int64_t *) &versions[stream], &old, version, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

/* All of them are made before there are threads. */
const char *
stream_name(int stream)
{
	static char names[STREAMS][8];

	if (names[stream][0] == '\0')
		sprintf(names[stream], "%c-%d", 'a' + stream % CATEGORIES, stream / CATEGORIES);
	return names[stream];
}

int
stream_number(const char *name)
{
	int			category = name[0] - 'a';
	int			n = name[0] && name[1] == '-' ? atoi(name + 2) : -1;
	int			stream = n * CATEGORIES + category;

	return category >= 0 && category < CATEGORIES && n >= 0 && stream < STREAMS ? stream : -1;
}
