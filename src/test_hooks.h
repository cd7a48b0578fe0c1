/*
 * test_hooks.h
 *	  What the tests need inside: points at which a session stops, steps of the
 *	  protocols that can be left out, allocations that fail.
 *
 * Only in a build with TEST_HOOKS=1, which must never hold anybody's events.
 * In any other one all of this is compiled to nothing.
 */
#ifndef ES_TEST_HOOKS_H
#define ES_TEST_HOOKS_H

/* The values of event_store.test_break: each is a mistake. */
typedef enum TestBreak
{
	ES_BREAK_NOTHING,
	ES_BREAK_IN_FLIGHT_AFTER_NEXTVAL,
	ES_BREAK_LOCK_UNDER_CURRENT_OWNER,
	ES_BREAK_MARK_AFTER_SNAPSHOT,
	ES_BREAK_CHECKPOINT_IS_MARK,
	ES_BREAK_MVCC_SNAPSHOT,
	ES_BREAK_NO_STREAM_LOCK,
	ES_BREAK_WAKE_BEFORE_RELEASE,
	ES_BREAK_CHECKPOINT_APART,
	ES_BREAK_SEQUENCE_CACHE
} TestBreak;

#ifdef ES_TEST_HOOKS

extern int	es_test_break;
extern int	es_test_retry;
extern bool es_test_only_if_woken;

extern void es_test_hooks_init(void);
extern void es_test_point(const char *name);

#define ES_TEST_HOOKS_INIT()	es_test_hooks_init()
#define ES_POINT(name)			es_test_point(name)
#define ES_BROKEN(step)			(es_test_break == (step))
#define ES_RETRY_MS				es_test_retry
#define ES_ONLY_IF_WOKEN()		es_test_only_if_woken

#else

#define ES_TEST_HOOKS_INIT()	((void) 0)
#define ES_POINT(name)			((void) 0)
#define ES_BROKEN(step)			false
#define ES_RETRY_MS				1000	/* background processes, after their first failure */
#define ES_ONLY_IF_WOKEN()		false

#endif

#endif							/* ES_TEST_HOOKS_H */
