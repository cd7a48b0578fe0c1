/*
 * fuzz.h
 *	  A fuzzer over the SQL surface of event_store: what its files share.
 *
 * fuzz.c starts the clients and sums up; client.c is one session, and checks it;
 * templates.c holds what is done, as texts with gaps; value.c fills the gaps.
 * All that is sent depends on the seed and the client's number only, never on
 * what the server answers.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

/* libpq's growing strings; their header wants this of PostgreSQL's own. */
#define pg_attribute_printf(format_at, args_at) __attribute__((format(printf, format_at, args_at)))
#include <pqexpbuffer.h>

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define MAX_FUNCTIONS	200

/* A function of the schema event_store. */
typedef struct Function
{
	char	   *name;			/* qualified */
	char		kind;			/* pg_proc.prokind */
	bool		trigger;
	bool		event_trigger;
	bool		internal;		/* has an argument that SQL cannot make */
	int			nargs;
	int			ndefaults;
	char	  **types;
	char	  **names;
} Function;

/* What the clients, each a process, count together. */
typedef struct Counts
{
	long		calls;
	long		errors;
	long		failures;
	long		checks;			/* of locks */
	long		called[MAX_FUNCTIONS];
	long		succeeded[MAX_FUNCTIONS];
} Counts;

/* fuzz.c */
extern Counts *counts;
extern Function *functions;
extern int	num_functions;
extern char **views;
extern int	num_views;
extern char *dropped_oid;

extern void fatal(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));

/* client.c */
extern int	client(int number, uint64_t seed, long calls);

/* value.c */
extern uint64_t seed_random(uint64_t seed);	/* returns what it was */
extern uint64_t draw(void);
extern int	below(int n);
extern bool chance(int percent);
#define any_of(list)	((list)[below(lengthof(list))])
extern void value(PQExpBuffer buf, const char *type, const char *name);
extern void copy_line(PQExpBuffer buf);

/* The function being called, which tells what a "name" means. */
extern const Function *called;

/* Of the arrays of one call, mostly. */
extern int	array_length;

/* templates.c */
extern void expand(PQExpBuffer buf, const char *template);
extern void random_statement(PQExpBuffer buf);
extern void random_ddl(PQExpBuffer buf, bool *roll_back);
extern const char *random_query(void);
extern const char *random_setting(void);
extern const char *trigger_template(const Function *function);
extern const Function *random_function(void);
extern void arguments(PQExpBuffer buf, const Function *function);

/* The functions in the statement expanded last. */
extern int	last_called[];
extern int	num_last_called;

#endif							/* FUZZ_H */
