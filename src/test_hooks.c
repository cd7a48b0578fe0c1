/*
 * test_hooks.c
 *	  Settings of a build for tests (TEST_HOOKS=1); see test_hooks.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "shared_state.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "test_hooks.h"
#include "utils/guc.h"
#include "utils/varlena.h"

int			es_test_break = ES_BREAK_NOTHING;
bool		es_test_only_if_woken = false;

int			es_test_retry = 1000;

static int	session = 0;
static char *points = NULL;
static bool in_turns = false;
static char *due = NULL;		/* only shown */
static int	fail_alloc = 0;		/* as set; 0: never */
static int	allocs_left = 0;	/* until it fails; 0: it has, or never will */
static char *fail_in = NULL;	/* bgw_type; empty: not in background processes */

static const struct config_enum_entry breaks[] = {
	{"nothing", ES_BREAK_NOTHING, false},
	{"in_flight_after_nextval", ES_BREAK_IN_FLIGHT_AFTER_NEXTVAL, false},
	{"lock_under_current_owner", ES_BREAK_LOCK_UNDER_CURRENT_OWNER, false},
	{"mark_after_snapshot", ES_BREAK_MARK_AFTER_SNAPSHOT, false},
	{"checkpoint_is_mark", ES_BREAK_CHECKPOINT_IS_MARK, false},
	{"mvcc_snapshot", ES_BREAK_MVCC_SNAPSHOT, false},
	{"no_stream_lock", ES_BREAK_NO_STREAM_LOCK, false},
	{"wake_before_release", ES_BREAK_WAKE_BEFORE_RELEASE, false},
	{"checkpoint_apart", ES_BREAK_CHECKPOINT_APART, false},
	{"sequence_cache", ES_BREAK_SEQUENCE_CACHE, false},
	{NULL, 0, false}
};

static void arm(int value, void *extra);
static const char *show_allocs_left(void);
static const char *show_due(void);

void
es_test_hooks_init(void)
{
	DefineCustomEnumVariable("event_store.test_break",
							 "Makes a mistake in the protocols, for tests that must find it.",
							 NULL,
							 &es_test_break, ES_BREAK_NOTHING, breaks,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("event_store.test_points",
							   "The points at which this session stops, separated by commas.",
							   "At the n-th of the list it waits for the advisory lock (event_store.test_session, n).",
							   &points, "",
							   PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("event_store.test_session",
							"The first key of the advisory locks that this session waits for.",
							NULL,
							&session, 0, 0, PG_INT32_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("event_store.test_in_turns",
							 "Every other time at the n-th point it waits for the lock of n + 100 instead.",
							 "Who releases one lock and takes it again is then in time for the next stop, however soon it comes.",
							 &in_turns, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("event_store.test_only_if_woken",
							 "The worker does not look again by itself while something is in flight.",
							 "What it is not woken for it then never sees.",
							 &es_test_only_if_woken, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("event_store.test_due",
							   "Shows whether the worker of this database has something to do.",
							   NULL,
							   &due, "",
							   PGC_INTERNAL, 0, NULL, NULL, show_due);
	DefineCustomIntVariable("event_store.test_fail_alloc",
							"Which allocation of the library fails from now on, once; 0 is none.",
							"Shows how many are left until then: 0 when it has failed.",
							&fail_alloc, 0, 0, PG_INT32_MAX,
							PGC_SUSET, 0, NULL, arm, show_allocs_left);
	DefineCustomStringVariable("event_store.test_fail_in",
							   "The type of the background processes in which allocations fail.",
							   "They fail in each that is started as long as it is set. By default, they fail in sessions only.",
							   &fail_in, "",
							   PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("event_store.test_retry",
							"The pause of a background process after its first failure.",
							NULL,
							&es_test_retry, 1000, 1, 60 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

/*
 * Waits for the point's lock, and releases it at once.  As a lock of the session,
 * since there may be no transaction here.
 */
void
es_test_point(const char *name)
{
	static uint64 turns = 0;	/* a bit for each point */
	int			length = strlen(name);
	int			n = 1;
	LOCKTAG		tag;
	int			timeout = LockTimeout;

	if (points == NULL || points[0] == '\0')
		return;
	for (const char *p = points;; p = strchr(p, ',') + 1, n++)
	{
		if (strncmp(p, name, length) == 0 && (p[length] == ',' || p[length] == '\0'))
			break;
		if (strchr(p, ',') == NULL)
			return;
	}
	if (in_turns)
	{
		uint64		bit = UINT64CONST(1) << (n & 63);

		turns ^= bit;
		if (turns & bit)
			n += 100;
	}
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, session, n, 2);
	LockTimeout = 0;
	(void) LockAcquire(&tag, ShareLock, true, false);
	LockTimeout = timeout;
	(void) LockRelease(&tag, ShareLock, true);
}

static void
arm(int value, void *extra)
{
	allocs_left = value;
}

static const char *
show_allocs_left(void)
{
	static char buffer[16];

	snprintf(buffer, sizeof(buffer), "%d", allocs_left);
	return buffer;
}

void
es_test_alloc(void)
{
	if (allocs_left > 0 &&
		strcmp(MyBgworkerEntry ? MyBgworkerEntry->bgw_type : "", fail_in) == 0 &&
		--allocs_left == 0)
	{
		/* Whoever catches the error may say nothing of it. */
		ereport(LOG,
				(errmsg("allocation %d of event_store fails", fail_alloc)));
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
}

/* What the worker does between lowering a flag and notifying is not asked for. */
static const char *
show_due(void)
{
	for (int i = 0; es_shared && i < es_shared->num_feeds; i++)
	{
		FeedSlot   *feed = &es_shared->feeds[i];

		if (feed->database == MyDatabaseId &&
			(pg_atomic_read_u32(&feed->dirty) || feed->look_again != ES_NEVER ||
			 (int64) pg_atomic_read_u64(&feed->published) > feed->notified))
			return "on";
	}
	return "off";
}
