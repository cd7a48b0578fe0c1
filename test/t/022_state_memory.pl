# Folds take the memory of their state, however many events and streams there are.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Few shared buffers, since those that a backend has touched count as its memory.
my $node = new_server('state_memory', conf => "shared_buffers = 8MB\nautovacuum = off\nfsync = off");
my $events = 200_000;
$node->safe_psql('postgres', <<"EOT");
SELECT event_store.create_event_table('ev');
SELECT event_store.append_batch('ev', 'big-1', array_agg('T' || i % 7), array_agg(jsonb_build_object('k' || i % 50, i, 'text', repeat('x', 40))))
  FROM generate_series(1, $events) i GROUP BY i % 4;
SELECT count(*) FROM event_store.append_streams('ev', (SELECT jsonb_agg(jsonb_build_object('stream', 'many-' || i, 'events', '[{"type": "T", "data": {"a": 1}}, {"type": "T", "data": {"b": 1}}]'::jsonb)) FROM generate_series(1, 20000) i));
CREATE FUNCTION inlined(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT to_jsonb(state::int + 1)';
CREATE FUNCTION not_inlined(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT to_jsonb(state::int + count(*)) FROM (VALUES (1)) v';
CREATE FUNCTION plpgsql(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS
	'BEGIN BEGIN RETURN to_jsonb(state::int + 1 + 0 * length(event.data::text)); EXCEPTION WHEN division_by_zero THEN RETURN NULL; END; END';
CREATE FUNCTION large(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS \$\$ SELECT to_jsonb(repeat(chr(65 + (event.version % 20)::int), 10000)) \$\$;
SELECT event_store.create_aggregate(f, (f || '(jsonb, event_store.event)')::regprocedure, '0', 1) FROM unnest('{inlined,not_inlined,plpgsql,large}'::text[]) f;
SELECT event_store.create_aggregate('merge');
EOT

# What a load of so many events takes, in a session of its own, above one of a few.
sub grown
{
	my ($query) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 1);
	my $pid = $session->query('SELECT pg_backend_pid()');
	my $peak = sub { (slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m)[0] / 1024 };
	my $contexts = sub { $session->query('SELECT sum(total_bytes) FROM pg_backend_memory_contexts') / 1024 / 1024 };

	$session->query(sprintf $query, 1000) for 1 .. 2;
	$contexts->();
	my ($memory, $bytes) = ($peak->(), $contexts->());
	my $result = $session->query(sprintf $query, $events);
	($memory, $bytes) = ($peak->() - $memory, $contexts->() - $bytes);
	$session->quit;
	return ($result, $memory, $bytes);
}

for my $case (
	[ 'merge()', q{SELECT version, (SELECT count(*) FROM jsonb_object_keys(state)) FROM event_store.load('ev', 'big-1', 'merge', %d)}, "$events|51" ],
	[ 'SQL', q{SELECT version, state FROM event_store.load('ev', 'big-1', 'inlined', %d)}, "$events|$events" ],
	[ 'SQL that is not inlined', q{SELECT version, state FROM event_store.load('ev', 'big-1', 'not_inlined', %d)}, "$events|$events" ],
	[ 'PL/pgSQL', q{SELECT version, state FROM event_store.load('ev', 'big-1', 'plpgsql', %d)}, "$events|$events" ],
	[ 'states of 10 kB', q{SELECT version, length(state #>> '{}') FROM event_store.load('ev', 'big-1', 'large', %d)}, "$events|10000" ],
	[ 'in the order of time', q{SELECT version, state FROM event_store.load('ev', 'big-1', 'inlined', %d, occurred_as_of => 'infinity')}, "$events|$events" ],
	[ 'fold()', q{SELECT event_store.fold(e, 'large') = to_jsonb(repeat('A', 10000)) FROM (SELECT e FROM event_store.read_stream('ev', 'big-1', max_count => %d) e) AS s(e)}, 't' ],
	[ 'many streams', q{SELECT count(*), count(DISTINCT state) FROM event_store.load_category('ev', CASE WHEN %d > 1000 THEN 'many' ELSE 'none' END, 'merge')}, '20000|1' ],
	[ 'many snapshots', q{SELECT event_store.take_snapshots('ev', 'large', CASE WHEN %d > 1000 THEN 'many' ELSE 'none' END, 2000)}, '2000' ])
{
	my ($name, $query, $expected) = @$case;
	my ($result, $memory, $bytes) = grown($query);
	is($result, $expected, "$name: the result");
	note(sprintf "%s: %.1f MB more at the peak, %.2f MB more afterwards", $name, $memory, $bytes);
	cmp_ok($memory, '<', 16, "$name: no more than 16 MB");
	cmp_ok($bytes, '<', 0.5, "$name: nothing stays");
}

# For a client there are 100,000 events in one row, and no part of more.
my $limit = 100_000;
my $rest = q{SELECT snapshot_version, version, jsonb_array_length(events) FROM event_store.read_stream_from_snapshot('ev', 'big-1', 'mine')};
$node->safe_psql('postgres', sprintf q{SELECT event_store.save_snapshot('ev', 'big-1', %d, '1', 'mine')}, $events - $limit - 1);
refused($node, $rest, '54000', "DETAIL:  It has room for $limit events, or about 16 MB of data, and is full at version " . ($events - 1), 'one event too many');
$node->safe_psql('postgres', sprintf q{SELECT event_store.save_snapshot('ev', 'big-1', %d, '1', 'mine')}, $events - $limit);
is($node->safe_psql('postgres', $rest), "100000|$events|100000", 'just as many as there may be');

log_is_clean($node);
$node->stop;
done_testing();
