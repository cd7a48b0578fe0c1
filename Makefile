# Builds, installs and tests event_store, the PGXS way.  `make help` lists the
# targets.  Nothing but git and make is needed to begin: `make setup` installs
# the rest on Debian, and `make test` and `make demo` do so by themselves.

EXTENSION   = event_store
MODULE_big  = event_store
# Not VERSION: that is PostgreSQL's own in PGXS.
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" event_store.control)

# Only in a build for tests.
TEST_SOURCES = src/test_hooks.c

# The parts of the install script, in their order.
SQL_PARTS = sql/schema.sql sql/event_tables.sql sql/append.sql sql/read.sql \
            sql/feed.sql sql/wait.sql sql/aggregates.sql sql/snapshots.sql \
            sql/event_types.sql sql/projections.sql

OBJS       = $(patsubst %.c,%.o,$(filter-out $(TEST_SOURCES),$(wildcard src/*.c)))
DATA       = $(wildcard sql/updates/*.sql)
DATA_built = $(EXTENSION)--$(EXTVERSION).sql

# pg_regress finds test/sql/*.sql by --inputdir, and the goldens of both kinds
# in ./expected by its --outputdir.
names           = $(sort $(basename $(notdir $(wildcard $(1)))))
REGRESS        := $(call names,test/sql/*.sql)
ISOLATION      := $(call names,test/specs/*.spec)
REGRESS_OPTS    = --inputdir=test
ISOLATION_OPTS  = --inputdir=test --outputdir=.
REGRESS_PREP    = check-names

# All that any target leaves behind; also what clean removes without PGXS.
EXTRA_CLEAN = src/*.o src/*.bc *.so event_store--*.sql results log \
              output_iso tmp_check tmp_check_iso regression.diffs regression.out

# LLVM bitcode would only let JIT inline tiny functions, and needs clang.
override with_llvm = no

# WERROR=1: warnings are errors, as in .ci/run.  The server's headers count as
# system headers then, since -Wextra finds fault with their inline functions
# and macros.  Parameters stay unused where a callback's signature is the
# server's.
ifeq ($(WERROR),1)
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Werror
endif

# Builds for tests (test/server makes them): TEST_HOOKS=1 has points at which a
# session can be stopped, protocol steps that can be broken, and allocations that
# can fail; SANITIZE=1 reports undefined behaviour on stderr.
ifeq ($(TEST_HOOKS),1)
TEST_SOURCES  =
PG_CPPFLAGS  += -DES_TEST_HOOKS -include $(CURDIR)/src/test_alloc.h
endif
ifeq ($(SANITIZE),1)
PG_CFLAGS    += -fsanitize=undefined -fno-omit-frame-pointer
# Behind the -fwrapv of PostgreSQL, which would make overflows defined.
COPT         += -fno-wrapv
SHLIB_LINK   += -fsanitize=undefined
endif

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

PG_CONFIG ?= pg_config
PGXS      := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else
all install installcheck uninstall:
	@echo "event_store: $(PG_CONFIG) or the PostgreSQL server headers are missing: run \"make setup\", or name another with PG_CONFIG=/path/to/pg_config" >&2; exit 1
clean:
	rm -rf $(EXTRA_CLEAN)
.PHONY: all install installcheck uninstall clean
endif

$(DATA_built): $(SQL_PARTS) event_store.control Makefile
	cat $(SQL_PARTS) > $@

$(OBJS): $(wildcard src/*.h) Makefile

# A file sql/X.sql would be run in place of test/sql/X.sql, and a spec and a
# regression test of one name would share expected/X.out.
shadowed := $(filter $(call names,sql/*.sql),$(call names,test/sql/*.sql))
shared   := $(filter $(call names,test/specs/*.spec),$(call names,test/sql/*.sql))
check-names:
	@$(if $(shadowed),echo "rename test/sql/$(firstword $(shadowed)).sql: sql/$(firstword $(shadowed)).sql would be run in its place" >&2; exit 1)
	@$(if $(shared),echo "rename test/specs/$(firstword $(shared)).spec: test/sql/$(firstword $(shared)).sql has the same golden file" >&2; exit 1)

setup:
	@test/setup
test:
	@test/run
demo:
	@examples/demo
bench:
	@bench/run
stress:
	@MINUTES=$${MINUTES:-5} test/stress/run
bench-full:
	@bench/run --full
fuzz:
	@test/fuzz/run
# Takes half an hour; FILES=... is some of it.
valgrind: export VALGRIND = 1
valgrind: export ONLY := $(or $(ONLY),pgtap regress isolation)
valgrind: export TEST_TIMEOUT := $(or $(TEST_TIMEOUT),7200)
valgrind:
	@test/run
schedules:
	@test/schedules/run
help:
	@echo 'make               build'
	@echo 'make install       install into the server that pg_config belongs to'
	@echo 'make installcheck  regression and isolation tests on a running server'
	@echo 'make setup         install with apt-get what build and tests need'
	@echo 'make test          all tests, on a private server'
	@echo '                   ONLY="regress pgtap"  FILES="append.sql"  RESULTS=dir'
	@echo 'make fuzz          random calls of everything; CALLS=50000  SEED=n'
	@echo 'make valgrind      tests on a server under memcheck; FILES="append.sql"'
	@echo 'make demo          a tour on a private server; KEEP=1 leaves it running'
	@echo 'make bench         benchmarks against others, on a private server; a quarter of an hour'
	@echo 'make bench-full    the same with all there is; an hour.  ONLY="append feed"'
	@echo 'make stress        load, crashes and a checker, for MINUTES=5; SEED=n'
	@echo 'make schedules     sessions in all orders of their steps, some minutes'
	@echo 'make clean         remove what was built'
	@echo 'Variables: PG_CONFIG=/path/to/pg_config, WERROR=1, DESTDIR=dir'
.PHONY: check-names setup test demo bench bench-full stress schedules fuzz valgrind help
