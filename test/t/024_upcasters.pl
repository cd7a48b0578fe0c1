# Upcasters on a standby, in a crash, and over many events.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Few shared buffers, since those that a backend has touched count as its memory.
my $primary = new_server('primary', allows_streaming => 1,
	conf => "shared_preload_libraries = 'event_store'\nshared_buffers = 16MB\nautovacuum = off");
$primary->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
CREATE FUNCTION up(e jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN e || jsonb_build_object('up', repeat('x', 500)); END $$;
CREATE FUNCTION caught(e jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS
$$ BEGIN PERFORM 1 / (e ->> 'n')::int; RETURN e; EXCEPTION WHEN division_by_zero THEN RETURN '"caught"'; END $$;
CREATE FUNCTION fails(e jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE EXCEPTION 'always'; END $$;
SELECT event_store.append('ev', 's-1', 'T', '{"n": 1}');
SELECT event_store.append('ev', 's-1', 'Caught', '{"n": 0}');
EOT
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

# On a standby, in a session that has read before.
my $reader = $standby->background_psql('postgres');
my $read = q{SELECT string_agg(schema_version || ' ' || data::text, ', ' ORDER BY version) FROM event_store.read_stream('ev', 's-1')};
is($reader->query($read), '1 {"n": 1}, 1 {"n": 0}', 'a standby without upcasters');
$primary->safe_psql('postgres', q{SELECT event_store.register_upcaster('ev', 'T', 1, 'up(jsonb)'), event_store.register_upcaster('ev', 'Caught', 1, 'caught(jsonb)')});
$primary->wait_for_catchup($standby);
is($reader->query(q{SELECT string_agg(schema_version || ' ' || (data ? 'up')::text, ', ' ORDER BY version) FROM event_store.read_stream('ev', 's-1')}),
	'2 true, 2 false', 'upcasters that are registered on the primary upcast on the standby');
eventually($standby, q{SELECT bool_and(schema_version = 2) AND count(*) = 2 FROM event_store.read_all('ev')}, 'its feeds, too');
is($reader->query(q{SELECT count(*) FROM event_store.check_upcasters('ev')}), 0, 'check_upcasters() on a standby');
is($reader->query(q{SELECT type, events, upcast_to FROM event_store.event_catalog}), "Caught|1|2\nT|1|2", 'event_catalog on a standby');
refused($standby, q{SELECT event_store.register_upcaster('ev', 'T', 2, 'up(jsonb)')}, '25006', 'read-only', 'nothing is registered there');
$reader->quit;
$standby->stop;

# A crash.
$primary->stop('immediate');
$primary->start;
is($primary->safe_psql('postgres', q{SELECT string_agg(type || from_version || function, ' ' ORDER BY type) FROM event_store.upcasters}),
	'Caught1public.caught(jsonb) T1public.up(jsonb)', 'after a crash they are there');

# The worker runs none: it looks at every event table without upcasting.
$primary->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('bad');
SELECT event_store.register_upcaster('bad', 'T', 1, 'fails(jsonb)');
SELECT event_store.append('bad', 's-1', 'T', '{}');
EOT
is($primary->safe_psql('postgres', q{SELECT event_store.wait_for_events('bad', 0)}), 1, 'the worker gets past events that cannot be upcast');
eventually($primary, q{SELECT count(*) = 1 FROM event_store.feed_marks WHERE event_table = 'bad'::regclass}, 'and records that standbys may read them');
unlike(slurp_file($primary->logfile), qr/ always/, 'without running an upcaster');

# Flat memory, over 100,000 events with 3 upcasters each; also where they begin subtransactions.
$primary->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('many');
INSERT INTO many (stream, type, data) SELECT 's-' || n % 10, CASE WHEN n % 2 = 0 THEN 'T' ELSE 'Caught' END, jsonb_build_object('n', n % 3) FROM generate_series(1, 100000) n;
SELECT event_store.register_upcaster('many', 'T', v, 'up(jsonb)') FROM generate_series(1, 3) v;
SELECT event_store.register_upcaster('many', 'Caught', 1, 'caught(jsonb)');
EOT
my $session = $primary->background_psql('postgres');
my $pid = $session->query('SELECT pg_backend_pid()');

sub peak_memory
{
	my ($kilobytes) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	return $kilobytes / 1024;
}

# What a scan and a sort of all take, and the functions, once.
$session->query(q{SELECT count(*) FROM event_store.read_all('many', max_count => 1000000, raw => true)});
is($session->query(q{SELECT count(*) FROM event_store.check_upcasters('many', 10)}), 0, 'check_upcasters(), a sample');
my $before = peak_memory();
is($session->query(q{SELECT count(*), sum(schema_version) FROM event_store.read_all('many', max_count => 1000000)}), '100000|300000', '100,000 events');
my $grown = peak_memory() - $before;
note("it took $grown MB");
cmp_ok($grown, '<', 8, 'in flat memory');
is($session->query(q{SELECT count(*) FROM event_store.check_upcasters('many')}), 0, 'check_upcasters() over 100,000 events');
$grown = peak_memory() - $before;
note("it took $grown MB");
cmp_ok($grown, '<', 8, 'in flat memory');

# Registering again and again, and reading, in one transaction.
is($session->query(q{DO $$ BEGIN FOR i IN 1 .. 2000 LOOP PERFORM event_store.register_upcaster('many', 'T', 1, 'up(jsonb)');
	PERFORM event_store.last_event('many', 's-1'); END LOOP; END $$; SELECT 1}), 1, 'registering 2,000 times in one transaction');
$grown = peak_memory() - $before;
note("it took $grown MB");
cmp_ok($grown, '<', 8, 'in flat memory');
$session->quit;

log_is_clean($primary, $standby);
$primary->stop;
done_testing();
