/*
 * event_id.c
 *	  New event ids: UUID version 7 (RFC 9562), rising within a backend, so
 *	  that new index entries stay on the rightmost pages.
 */
#include "postgres.h"

#include <time.h>

#include "event_id.h"

/* One unit of the 12 bits below the milliseconds, rounded up. */
#define NS_PER_MS		INT64CONST(1000000)
#define MIN_STEP_NS		((NS_PER_MS / 4096) + 1)

/*
 * 48 bits of milliseconds, 12 bits of their fraction, 62 random bits.  The
 * time is moved ahead by one fraction where the clock has not moved on.
 */
pg_uuid_t *
es_new_event_id(void)
{
	static int64 last_ns = 0;
	static uint8 random[512];
	static int	random_left = 0;
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));
	struct timespec now;
	int64		ns;
	uint64		ms;
	uint32		fraction;

	clock_gettime(CLOCK_REALTIME, &now);
	ns = now.tv_sec * (NS_PER_MS * 1000) + now.tv_nsec;
	ns = Max(ns, last_ns + MIN_STEP_NS);
	last_ns = ns;
	ms = ns / NS_PER_MS;
	fraction = (uint32) ((ns % NS_PER_MS) * 4096 / NS_PER_MS);

	if (random_left == 0)
	{
		if (!pg_strong_random(random, sizeof(random)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		random_left = sizeof(random);
	}
	random_left -= 8;

	for (int i = 0; i < 6; i++)
		id->data[i] = (uint8) (ms >> (40 - 8 * i));
	id->data[6] = 0x70 | (fraction >> 8);
	id->data[7] = fraction & 0xFF;
	memcpy(&id->data[8], &random[random_left], 8);
	id->data[8] = 0x80 | (id->data[8] & 0x3F);
	return id;
}
