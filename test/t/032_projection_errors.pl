# Handlers that fail in the background: what is shown, what counts all the same, and what happens when
# they are mended.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PGOPTIONS} = '-c statement_timeout=100s';

# 20,000 events in 20 streams, two of which are poison: their data is 0.
my $node = new_server('errors', no_extension => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
event_store.max_projectors = 6
max_worker_processes = 20
deadlock_timeout = 10ms
autovacuum = off
restart_after_crash = off
EOT
my $trace = '4bf92f3577b34da6a3ce929d0e0e4736';
$node->safe_psql('postgres', <<"EOT");
CREATE ROLE app LOGIN;
CREATE ROLE hasty LOGIN;
ALTER ROLE hasty SET statement_timeout = '200ms';
GRANT CREATE ON SCHEMA public TO app, hasty;
CREATE EXTENSION event_store;
SET ROLE app;
SELECT event_store.create_event_table('ev');
GRANT SELECT ON ev TO hasty;
SELECT FROM generate_series(1, 50) b, generate_series(1, 20) s, event_store.append_batch('ev', 's-' || s, array_fill('T'::text, '{20}'),
	(SELECT array_agg(CASE WHEN b = 40 AND s IN (3, 7) AND n = 10 THEN '0' ELSE to_jsonb(n) END) FROM generate_series(1, 20) n),
	metadata => array_fill('{"traceparent": "00-$trace-00f067aa0ba902b7-01"}'::jsonb, '{20}'));
EOT
$node->safe_psql('postgres', 'CREATE TABLE poison AS SELECT position, event_id, stream, version, type FROM ev WHERE data = to_jsonb(0)');
my @poison = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', 'SELECT position, event_id, stream, version, type FROM poison ORDER BY position');
is(scalar @poison, 2, 'one event in 10,000 is poison');

# A handler of each kind, for a read model of its own.
sub make_projection
{
	my ($name, $kind, $options) = @_;
	my $function = "CREATE FUNCTION handle_$name(event event_store.event) RETURNS void LANGUAGE plpgsql AS \$\$"
	  . " BEGIN IF event.data = '0' THEN RAISE 'poison in version %', event.version USING ERRCODE = 'PX042'; END IF;"
	  . " INSERT INTO $name (stream, version) VALUES (event.stream, event.version); END \$\$";
	my $handler = $kind eq 'function' ? "function => 'handle_$name(event_store.event)'"
	  : "statement => 'INSERT INTO $name (stream, version) SELECT stream, version FROM events WHERE 1 / data::int < 2 ORDER BY position'";

	$node->safe_psql('postgres', <<"EOT");
SET ROLE app;
CREATE TABLE $name (stream text, version bigint, number bigserial, UNIQUE (stream, version));
@{[ $kind eq 'function' ? $function : '' ]};
SELECT event_store.create_projection('$name', 'ev', $handler, max_attempts => 3, retry_delay => '1 ms', $options);
EOT
	return;
}

sub mend
{
	my ($name, $kind) = @_;

	$node->safe_psql('postgres', $kind eq 'function'
		? "SET ROLE app; CREATE OR REPLACE FUNCTION handle_$name(event event_store.event) RETURNS void LANGUAGE sql AS 'INSERT INTO $name (stream, version) VALUES (event.stream, event.version)'"
		: "SELECT event_store.alter_projection('$name', statement => 'INSERT INTO $name (stream, version) SELECT stream, version FROM events ORDER BY position')");
	return;
}

sub in_order
{
	my ($name, $text) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('postgres', "SELECT count(*) FROM (SELECT version < lag(version) OVER (PARTITION BY stream ORDER BY number) AS wrong FROM $name) x WHERE wrong"), 0, $text);
	return;
}

for my $kind ('function', 'statement')
{
	my $sqlstate = $kind eq 'function' ? 'PX042' : '22012';
	my $message = $kind eq 'function' ? qr/poison in version 790/ : qr/division by zero/;
	my ($stop, $park, $park_stream) = map { "${kind}_$_" } 'stop', 'park', 'park_stream';
	my $offset = -s $node->logfile;
	make_projection($stop, $kind, q{on_error => 'stop'});
	make_projection($park, $kind, q{on_error => 'park'});
	make_projection($park_stream, $kind, q{on_error => 'park_stream', partitions => 2});

	# stop.
	my ($position, $id, $stream, $version, $type) = @{ $poison[0] };
	projection_is($node, $stop, q{status = 'failed'}, "$stop: at last it stops");
	my $before = $node->safe_psql('postgres', "SELECT max(position) FROM ev WHERE position < $position");
	is($node->safe_psql('postgres', "SELECT position, attempts, errors, parked, last_error_position, last_error_event_id, last_error_stream, last_error_type, last_error_sqlstate, retry_at IS NULL FROM event_store.projections WHERE name = '$stop'"),
		join('|', $before, 3, 3, 0, $position, $id, $stream, $type, $sqlstate, 't'), 'the view tells which event it was');
	like($node->safe_psql('postgres', "SELECT last_error FROM event_store.projections WHERE name = '$stop'"), $message, 'and the message');
	my $where = qr/event $id at position $position \(stream "$stream", type "$type", trace $trace\) in projection "$stop"/;
	like($node->safe_psql('postgres', "SELECT last_error_context FROM event_store.projections WHERE name = '$stop'"), $where, 'and the context');
	is_fold($node, "SELECT stream, version FROM $stop", "SELECT stream, version FROM ev WHERE position < $position", 'everything before it counts');
	my $log = slurp_file($node->logfile, $offset);
	is(scalar(() = $log =~ /LOG:  projection "$stop" failed at position $position, attempt [12] of 3: $message\n.*CONTEXT: [^\n]*(?:\n\t[^\n]*)*?$where/g), 2, 'the log tells of each attempt, which event, and its trace');
	is(scalar(() = $log =~ /WARNING:  projection "$stop" failed at position $position, attempt 3 of 3: $message\n.*CONTEXT: [^\n]*(?:\n\t[^\n]*)*?$where/g), 1, 'the last one is a warning');
	refused($node, "SELECT event_store.wait_for_projection('$stop', $position)", 'SE007', "failed at position $before, before position $position", 'nobody waits for it');
	$node->safe_psql('postgres', "SELECT event_store.resume_projection('$stop')");
	projection_is($node, $stop, q{status = 'failed' AND errors = 6}, 'when resumed without repair it fails again');
	mend($stop, $kind);
	$node->safe_psql('postgres', "SELECT event_store.resume_projection('$stop')");
	caught_up($node, $stop, 'when mended and resumed it catches up');
	is_fold($node, "SELECT stream, version FROM $stop", 'SELECT stream, version FROM ev', 'every event has been handled once');
	in_order($stop, 'in order');

	# park.
	caught_up($node, $park, "$park: it catches up");
	is($node->safe_psql('postgres', "SELECT position, event_id, stream, type, attempts, sqlstate FROM event_store.parked_events WHERE projection = '$park' ORDER BY position"),
		join("\n", map { join '|', @$_[0 .. 2, 4], 3, $sqlstate } @poison), 'the two events are parked');
	is($node->safe_psql('postgres', "SELECT status, parked, errors FROM event_store.projections WHERE name = '$park'"), 'running|2|6', 'and it goes on');
	like($node->safe_psql('postgres', "SELECT message, context FROM event_store.parked_events WHERE projection = '$park' AND position = $position"),
		qr/^$message\|(?s:.*)event $id at position $position/, 'with message and context');
	is_fold($node, "SELECT stream, version FROM $park", 'SELECT stream, version FROM ev WHERE position NOT IN (SELECT position FROM poison)', 'the others count');
	is($node->safe_psql('postgres', "SELECT event_store.retry_parked('$park')"), 0, 'without repair they fail again');
	is($node->safe_psql('postgres', "SELECT string_agg(attempts::text, ' ') FROM event_store.parked_events WHERE projection = '$park'"), '4 4', 'which counts as an attempt');
	mend($park, $kind);
	is($node->safe_psql('postgres', "SELECT event_store.retry_parked('$park', $position), event_store.retry_parked('$park')"), '1|1', 'when mended, not');
	is_fold($node, "SELECT stream, version FROM $park", 'SELECT stream, version FROM ev', 'every event has been handled once');

	# park_stream.
	caught_up($node, $park_stream, "$park_stream: it catches up");
	my $behind = 'SELECT e.stream, e.version FROM ev e JOIN poison p USING (stream) WHERE e.version >= p.version';
	is_fold($node, "SELECT e.stream, e.version FROM event_store.parked_events JOIN ev e USING (position) WHERE projection = '$park_stream'", $behind, 'with an event all later ones of its stream are parked');
	is($node->safe_psql('postgres', "SELECT count(*) FILTER (WHERE sqlstate IS NOT NULL), count(*) FILTER (WHERE attempts = 0 AND message IS NULL) = count(*) - 2 FROM event_store.parked_events WHERE projection = '$park_stream'"),
		'2|t', 'but only one has failed');
	is_fold($node, "SELECT stream, version FROM $park_stream", "SELECT stream, version FROM ev EXCEPT ($behind)", 'the others count');
	$node->safe_psql('postgres', "SELECT event_store.append('ev', s, 'T', '1') FROM unnest('{s-3,s-4}'::text[]) s");
	caught_up($node, $park_stream, 'it goes on');
	is($node->safe_psql('postgres', "SELECT stream FROM event_store.parked_events WHERE projection = '$park_stream' AND position > (SELECT max(position) - 2 FROM ev)"), 's-3', 'what comes later waits as well, in this stream');
	$node->restart if $kind eq 'function';
	is($node->safe_psql('postgres', "SELECT event_store.retry_parked('$park_stream')"), 0, 'without repair all go on waiting');
	mend($park_stream, $kind);
	cmp_ok($node->safe_psql('postgres', "SELECT event_store.retry_parked('$park_stream')"), '>', 400, 'when mended they are handled');
	caught_up($node, $park_stream, 'it goes on');
	is_fold($node, "SELECT stream, version FROM $park_stream", 'SELECT stream, version FROM ev', 'every event has been handled once');
	in_order($park_stream, 'each stream in its order');
}

# A first attempt that is the last one.
{
	my $offset = -s $node->logfile;
	my ($position, $id) = @{ $poison[0] };

	make_projection('at_once', 'function', q{on_error => 'park'});
	$node->safe_psql('postgres', q{BEGIN; SELECT event_store.alter_projection('at_once', max_attempts => 1), event_store.reset_projection('at_once'); TRUNCATE at_once; COMMIT});
	caught_up($node, 'at_once', 'with max_attempts = 1 an event is parked at once');
	is($node->safe_psql('postgres', q{SELECT string_agg(attempts::text, ' ') FROM event_store.parked_events WHERE projection = 'at_once'}), '1 1', 'after one attempt');
	like(slurp_file($node->logfile, $offset), qr/event $id at position $position \(stream "s-3", type "T", trace $trace\)/, 'the log says which');
}

# Deadlocks with a session of a user.
$node->safe_psql('postgres', <<'EOT');
SET ROLE app;
CREATE TABLE counters (name text PRIMARY KEY, n bigint);
INSERT INTO counters VALUES ('a', 0), ('b', 0);
CREATE FUNCTION count_both(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE counters SET n = n + 1 WHERE name = 'a';
	PERFORM pg_advisory_xact_lock_shared(1);
	UPDATE counters SET n = n + 1 WHERE name = 'b';
END $$;
SELECT event_store.create_projection('deadlock', 'ev', function => 'count_both(event_store.event)', on_error => 'park', max_attempts => 100, retry_delay => '1 ms',
	types => '{Counted}', start_after => (SELECT max(position) FROM ev));
EOT
my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = '%s' AND wait_event = '%s'};
for my $victim ('the projector', 'the user')
{
	my $user = $node->background_psql('postgres', on_error_stop => 0);
	my $gate = $node->background_psql('postgres');

	$user->query_safe(q{BEGIN; UPDATE counters SET n = n WHERE name = 'b'});
	$gate->query_safe('SELECT pg_advisory_lock(1)') if $victim eq 'the projector';
	$node->safe_psql('postgres', q{SELECT event_store.append('ev', 'd-1', 'Counted', '1')});
	$node->poll_query_until('postgres', sprintf $waits, 'event_store projector', $victim eq 'the projector' ? 'advisory' : 'transactionid') or die 'the handler does not wait';
	if ($victim eq 'the projector')
	{
		$user->query_until(qr/waiting/, "\\echo waiting\nUPDATE counters SET n = n WHERE name = 'a';\n");
		$node->poll_query_until('postgres', sprintf $waits, 'client backend', 'transactionid') or die 'the user does not wait';
		$gate->query_safe('SELECT pg_advisory_unlock(1)');
		$user->query_safe('SELECT 1');
	}
	else
	{
		like($user->query(q{UPDATE counters SET n = n WHERE name = 'a'}) . $user->{stderr}, qr/deadlock detected/, "a deadlock of which $victim is the victim");
	}
	$user->query('COMMIT');
	caught_up($node, 'deadlock', "the projection goes on when $victim was the victim");
	$_->quit for $user, $gate;
	eventually($node, q{SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = 'postgres'}, 'there was a deadlock');
}
is($node->safe_psql('postgres', q{SELECT string_agg(n::text, ' ') FROM counters}), '2 2', 'both events count once');
is($node->safe_psql('postgres', q{SELECT status, parked, attempts FROM event_store.projections WHERE name = 'deadlock'}), 'running|0|0', 'and neither is parked');

# statement_timeout, of a role and of a database.
$node->safe_psql('postgres', 'CREATE DATABASE hasty; GRANT CREATE ON DATABASE hasty TO app');
$node->safe_psql('hasty', q{ALTER DATABASE hasty SET statement_timeout = '200ms'; CREATE EXTENSION event_store; GRANT CREATE ON SCHEMA public TO app;
	SELECT event_store.create_event_table('ev'); GRANT SELECT ON ev TO app});
for my $case ([ 'postgres', 'hasty' ], [ 'hasty', 'app' ])
{
	my ($db, $role) = @$case;
	local $ENV{PGOPTIONS} = '-c statement_timeout=100s';

	my ($slow) = $node->safe_psql($db, <<"EOT") =~ /(\d+)$/;
SET statement_timeout = 0;
SELECT first_position - 1 AS begin FROM event_store.append_batch('ev', 't-1', '{U,U,U}', '{0,100,0}') \\gset
SET ROLE $role;
CREATE TABLE slept (position bigint);
SELECT event_store.create_projection('slow', 'ev', on_error => 'park', max_attempts => 2, retry_delay => '1 ms', types => '{U}', start_after => :begin,
	statement => 'INSERT INTO slept SELECT position FROM events, pg_sleep(data::int)');
SELECT :begin + 2;
EOT
	caught_up($node, 'slow', "statement_timeout of $db, $role: the projection goes on", $db);
	is($node->safe_psql($db, q{SELECT position, sqlstate, attempts, message FROM event_store.parked_events WHERE projection = 'slow'}),
		"$slow|57014|2|canceling statement due to statement timeout", 'the event that takes too long is parked');
	is($node->safe_psql($db, 'SELECT count(*) FROM slept'), 2, 'the others count');
}

# What is deferred fails with its event, not at the commit.
$node->safe_psql('postgres', <<'EOT');
SET ROLE app;
CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parents (n int PRIMARY KEY);
INSERT INTO parents VALUES (1), (2), (4);
CREATE TABLE later (n int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
SELECT event_store.append_batch('ev', 'l-1', '{L,L,L,L,L}', '{1,2,1,3,4}');
SELECT event_store.create_projection('late', 'ev', on_error => 'park', max_attempts => 2, retry_delay => '1 ms', types => '{L}',
	statement => 'WITH x AS (INSERT INTO late SELECT data::int FROM events RETURNING n) INSERT INTO later TABLE x');
EOT
caught_up($node, 'late', 'deferred constraints: the projection goes on');
is($node->safe_psql('postgres', q{SELECT e.version, k.sqlstate, k.attempts FROM event_store.parked_events k JOIN ev e USING (position) WHERE projection = 'late' ORDER BY 1}),
	"3|23505|2\n4|23503|2", 'the events that violate them are parked');
is($node->safe_psql('postgres', q{SELECT string_agg(n::text, ' ' ORDER BY n) FROM late JOIN later USING (n)}), '1 2 4', 'the others count');

log_is_clean($node);
$node->stop;
done_testing();
