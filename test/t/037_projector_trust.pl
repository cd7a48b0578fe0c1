# What a handler does to the session that it is run in, and as whom it runs.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('trust', conf => "shared_preload_libraries = 'event_store'\nrestart_after_crash = off\n");

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

$node->safe_psql('postgres', <<'EOT');
CREATE ROLE bob LOGIN;
CREATE ROLE alice LOGIN IN ROLE bob;
GRANT CREATE ON SCHEMA public TO bob, alice;
SELECT event_store.create_event_table('ev');
GRANT SELECT, INSERT ON ev TO bob, alice;
SELECT event_store.append('ev', 's-1', 'T', '{}');
EOT

# A handler that runs somebody else's projection.
$node->safe_psql('postgres', <<'EOT', extra_params => [ '-U', 'bob' ]);
CREATE TABLE who (name text);
SELECT event_store.create_projection('bobs', 'ev', 'INSERT INTO who SELECT current_user FROM events', mode => 'manual');
EOT
$node->safe_psql('postgres', <<'EOT', extra_params => [ '-U', 'alice' ]);
CREATE FUNCTION run_bobs(e event_store.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM event_store.run_projection('bobs'); END $$;
SELECT event_store.create_projection('alices', 'ev', function => 'run_bobs(event_store.event)');
EOT
eventually($node, q{SELECT count(*) = 1 FROM who}, 'a handler has run the projection of another role');
is(query('SELECT name FROM who'), 'bob', 'which ran as its own owner');

# Locks of the transaction last as long as the transaction; those of the session do not outlive the batch.
$node->safe_psql('postgres', <<'EOT', extra_params => [ '-U', 'bob' ]);
CREATE TABLE locked (held boolean);
CREATE TABLE written (n int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO locked SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 7);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
CREATE FUNCTION lock_and_write(e event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7), pg_advisory_lock(8);
    PREPARE left_behind AS SELECT 1;
    CREATE TEMPORARY TABLE left_behind (n int);
    INSERT INTO written VALUES (1);
END $$;
SELECT event_store.create_projection('locks', 'ev', function => 'lock_and_write(event_store.event)');
EOT
eventually($node, q{SELECT count(*) = 1 FROM locked}, 'a handler has taken locks');
is(query('SELECT held FROM locked'), 't', 'that of the transaction is held when it is committed');
is(query(q{SELECT pg_try_advisory_lock(8)}), 't', 'that of the session is gone');
query(q{SELECT event_store.append('ev', 's-1', 'T', '{}')});
eventually($node, q{SELECT count(*) = 2 FROM written}, 'nothing that it has left is in the way of the next batch');

# Nor do they outlive a batch that fails.
$node->safe_psql('postgres', <<'EOT', extra_params => [ '-U', 'bob' ]);
CREATE FUNCTION lock_and_fail(e event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock(9);
    RAISE 'no';
END $$;
SELECT event_store.create_projection('fails', 'ev', function => 'lock_and_fail(event_store.event)', max_attempts => 1);
EOT
eventually($node, q{SELECT status = 'failed' FROM event_store.projections WHERE name = 'fails'}, 'a handler that takes a lock fails');
eventually($node, q{SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 9)}, 'its lock is gone');

log_is_clean($node);
done_testing();
