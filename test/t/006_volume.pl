# Large appends, on a server with default settings for locks.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Few shared buffers, since those that a backend has touched count as its memory.
my $node = new_server('volume', conf => "shared_buffers = 16MB\nautovacuum = off");
$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
EOT

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query('SELECT pg_backend_pid()');

sub peak_memory
{
	my ($kilobytes) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	return $kilobytes / 1024;
}

# 100,000 events for one stream in one call; first the same arrays without it.
my $arrays = q{SELECT array_agg('Type' || n % 7) AS types, array_agg(jsonb_build_object('n', n, 'text', repeat('x', 50))) AS data FROM generate_series(1, 100000) n};
is($session->query("SELECT cardinality(types), cardinality(data) FROM ($arrays) a"), '100000|100000', 'the input');
my $before = peak_memory();
is($session->query(qq{SELECT b.first_version, b.last_version, b.first_position, b.last_position, cardinality(b.event_ids), b.duplicate
	FROM ($arrays) a, event_store.append_batch('ev', 'big-1', types, data, expected_version => 0) b}),
	'1|100000|1|100000|100000|f', '100,000 events in one call');
my $grown = peak_memory() - $before;
note("it took $grown MB above the input");
cmp_ok($grown, '<', 256, 'within 256 MB above the input');
is($session->query(q{SELECT count(*), min(version), max(version), count(DISTINCT event_id) FROM ev WHERE stream = 'big-1'}), '100000|1|100000|100000', 'all are there');
is($session->query(q{SELECT count(*) FROM (SELECT position - lag(position) OVER (ORDER BY version) AS step FROM ev WHERE stream = 'big-1') s WHERE step <> 1}), 0, 'in order');
is($session->query(q{SELECT count(*) FROM event_store.read_stream('ev', 'big-1')}), 100000, 'read_stream returns them all');

# The same as JSON.
is($session->query(q{SELECT a.last_version FROM (SELECT jsonb_agg(jsonb_build_object('type', 'T', 'data', n)) AS j FROM generate_series(1, 100000) n) e, event_store.append_json('ev', 'big-2', j) a}),
	100000, '100,000 events in one JSON array');

# 100,000 streams in one call.
is($session->query(q{SELECT count(*), count(DISTINCT a.stream), min(first_version), max(last_version)
	FROM event_store.append_streams('ev', (SELECT jsonb_agg(jsonb_build_object('stream', 'many-' || n, 'expected_version', 0,
		'events', jsonb_build_array(jsonb_build_object('type', 'T', 'data', n)))) FROM generate_series(1, 100000) n)) a}),
	'100000|100000|1|1', '100,000 streams in one call');
is($session->query(q{SELECT count(*) FROM event_store.streams('ev', 'many')}), 100000, 'all are there');

# 20,000 streams in one plain INSERT.
my $insert = q{INSERT INTO ev (stream, type, data) SELECT 'import-' || n, 'T', '{}' FROM generate_series(1, 20000) n};
refused($node, $insert, '53200', 'HINT: .*LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE', '20,000 streams in one INSERT: the error names the way');
is($node->safe_psql('postgres', q{SELECT count(*) FROM ev WHERE stream = 'import-1'}), 0, 'nothing of it is left');
$node->safe_psql('postgres', "BEGIN; LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE; $insert; COMMIT");
is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.streams('ev', 'import')}), 20000, 'that way works');

# 50 MB of data in one event.
is($node->safe_psql('postgres', q{SELECT first_version FROM event_store.append('ev', 'fat-1', 'T', (SELECT to_jsonb(string_agg(md5(n::text), '')) FROM generate_series(1, 1600000) n))}), 1, '50 MB in one event');
is($node->safe_psql('postgres', q{SELECT length(data #>> '{}') FROM event_store.read_stream('ev', 'fat-1')}), 51200000, 'read_stream returns it');
is($node->safe_psql('postgres', q{SELECT length(events #>> '{0,data}') FROM event_store.read_batch('ev', after => event_store.last_position('ev') - 1)}), 51200000, 'read_batch too');
is($node->safe_psql('postgres', q{SELECT right(data #>> '{}', 32) = md5('1600000') FROM event_store.last_event('ev', 'fat-1')}), 't', 'to its end');

# The ids that one session has made rise, over calls of every kind.
$session->query(q{SELECT event_store.append('ev', 'single', 'T', '{}') FROM generate_series(1, 1000)});
is($session->query(q{SELECT count(*) FROM (SELECT event_id < lag(event_id) OVER (ORDER BY position) AS falls FROM ev WHERE event_store.category(stream) IN ('big', 'many', 'single')) i WHERE falls}),
	0, 'the UUIDs of one session rise');
is($session->query(q{SELECT count(*) FROM ev WHERE event_id::text !~ '^.{14}7.{4}[89ab]'}), 0, 'they are of version 7');

# The memory of a session does not grow with the number of its appends, whatever
# users have put on the table, nor with the number of those that fail.
$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('bare');
SELECT event_store.create_event_table('rich');
CREATE TABLE noticed (position bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noticed VALUES (NEW.position); RETURN NULL; END $$;
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.metadata := '{"changed": true}'; RETURN NEW; END $$;
ALTER TABLE rich ADD COLUMN total int GENERATED ALWAYS AS ((data ->> 'total')::int) STORED,
	ADD COLUMN place text DEFAULT upper('here'), ADD CHECK (total > 0), ADD CHECK (length(type) > 0);
CREATE INDEX ON rich (lower(type)) WHERE total > 1;
CREATE TRIGGER change BEFORE INSERT ON rich FOR EACH ROW WHEN (NEW.type <> 'x') EXECUTE FUNCTION change();
CREATE TRIGGER note AFTER INSERT ON rich FOR EACH ROW WHEN (NEW.total > 1) EXECUTE FUNCTION note();
EOT
for my $table ('bare', 'rich')
{
	my $appends = sub {
		my ($n) = @_;
		$session->query("SELECT event_store.append('$table', 'm-1', 'T', '{\"total\": 2}')") for 1 .. 20;
		$session->query(<<"EOT");
DO \$\$
BEGIN
	FOR i IN 1 .. $n LOOP
		PERFORM event_store.append('$table', 'm-1', 'T', '{"total": 2}', event_id => ('00000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid);
		BEGIN
			PERFORM event_store.append_batch('$table', 'm-2', ARRAY['T', 'U'], ARRAY['{"total": 2}', '{"total": 0}']::jsonb[], expected_version => 0);
			RAISE division_by_zero;
		EXCEPTION WHEN check_violation OR division_by_zero THEN
			NULL;
		END;
	END LOOP;
END \$\$
EOT
		return $session->query('SELECT sum(total_bytes) FROM pg_backend_memory_contexts');
	};
	my $at_first = $appends->(500);
	my $later = $appends->(5000);
	note("$table: $at_first bytes, then $later");
	cmp_ok($later, '<', $at_first + 300_000, "$table: the session's memory does not grow");
}
is($session->query('SELECT count(*) FROM noticed'), 5040, 'the trigger has fired for each event that is there');
is((split /\n/, $session->{stderr})[0], undef, 'no error or warning on the way');

$session->quit;
log_is_clean($node);
$node->stop;
done_testing();
