# What becomes of projections in the background when what they are made of changes, under load: their
# handlers, tables, privileges, owners and settings.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PGOPTIONS} = '-c statement_timeout=100s';

my $node = new_server('changes', no_extension => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
event_store.max_projectors = 6
max_worker_processes = 20
autovacuum = off
restart_after_crash = off
EOT
$node->safe_psql('postgres', <<'EOT');
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE ROLE gone LOGIN;
GRANT CREATE ON SCHEMA public TO app, other, gone;
CREATE EXTENSION event_store;
SELECT event_store.create_event_table(t) FROM unnest('{ev,brief,orders}'::text[]) t;
GRANT SELECT, INSERT, TRIGGER ON ev, brief, orders TO app, other, gone;
GRANT USAGE ON SEQUENCE ev_position_seq, orders_position_seq TO app;
SET ROLE other;
CREATE TABLE witness (stream text PRIMARY KEY, n bigint);
SELECT event_store.create_projection('witness', 'ev', statement => 'INSERT INTO witness AS m SELECT stream, count(*) FROM events GROUP BY stream
	ON CONFLICT (stream) DO UPDATE SET n = m.n + excluded.n');
EOT
my $fold = 'SELECT stream, count(*) FROM ev GROUP BY stream';
my $streams = 'SELECT stream, count(*) FROM %s GROUP BY stream';

# The function is called once per event, and says which of its versions it is.
sub function_sql { my ($name, $version) = @_; return "CREATE OR REPLACE FUNCTION handle_$name(event event_store.event) RETURNS void LANGUAGE sql AS 'INSERT INTO $name VALUES (event.position, event.stream, $version)'"; }
sub table_sql { my ($name) = @_; return "CREATE TABLE $name (position bigint PRIMARY KEY, stream text, handler int)"; }
sub as_app { my ($sql) = @_; return $node->safe_psql('postgres', "SET ROLE app; $sql"); }
sub newest { return $node->safe_psql('postgres', 'SELECT max(position) FROM ev'); }
sub goes_on
{
	my ($name, $text) = @_;
	my $newest = newest();

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	projection_is($node, $name, "position > $newest", $text);
	return;
}

# Changes that a projection cannot live with, and those that mend them.
my @writers = writers($node, 2, 'ev');
my $offset = -s $node->logfile;
for my $case (
	[ 'dropped', '42883', 'the function is dropped', 'DROP FUNCTION handle_dropped(event_store.event)', function_sql('dropped', 2) ],
	[ 'moved', '42883', 'the function has another signature', 'DROP FUNCTION handle_moved(event_store.event); CREATE FUNCTION handle_moved(jsonb) RETURNS void LANGUAGE sql AS $$$$',
		function_sql('moved', 2) =~ s/handle_moved/handle_it/r . q{; SELECT event_store.alter_projection('moved', function => 'handle_it(event_store.event)')} ],
	[ 'set_returning', '42P13', 'the function is no handler any more', 'DROP FUNCTION handle_set_returning(event_store.event); CREATE FUNCTION handle_set_returning(event event_store.event) RETURNS SETOF int LANGUAGE sql AS $$SELECT 1$$',
		'DROP FUNCTION handle_set_returning(event_store.event); ' . function_sql('set_returning', 2) ],
	[ 'broken', '42P01', 'the function is replaced by one that cannot run', 'CREATE OR REPLACE FUNCTION handle_broken(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN INSERT INTO nowhere VALUES (1); END$$',
		function_sql('broken', 2) ],
	[ 'tableless', '42P01', 'its table is dropped', 'DROP TABLE tableless', table_sql('tableless') . q{; SELECT event_store.reset_projection('tableless')} ],
	[ 'columnless', '42804|42601|42703', 'its table gets another column', 'ALTER TABLE columnless ALTER stream TYPE int USING 0', q{DROP TABLE columnless; } . table_sql('columnless') . q{; SELECT event_store.reset_projection('columnless')} ],
	[ 'unprivileged', '42501', 'its owner loses SELECT', 'RESET ROLE; REVOKE SELECT ON ev FROM app', 'RESET ROLE; GRANT SELECT ON ev TO app' ])
{
	my ($name, $sqlstate, $text, $break, $mend) = @$case;

	as_app(table_sql($name) . ';' . function_sql($name, 1) . qq{; SELECT event_store.create_projection('$name', 'ev', function => 'handle_$name(event_store.event)',
		on_error => 'park', max_attempts => 3, retry_delay => '1 ms')});
	goes_on($name, "$name: a projection under load");
	as_app("BEGIN; $break; COMMIT");
	projection_is($node, $name, q{status = 'failed'}, "$text: it stops");
	like($node->safe_psql('postgres', "SELECT last_error_sqlstate FROM event_store.projections WHERE name = '$name'"), qr/^(?:$sqlstate)$/, 'and says why');
	goes_on('witness', 'others go on');
	is($node->safe_psql('postgres', "SELECT parked FROM event_store.projections WHERE name = '$name'"), 0, 'nothing is parked');
	as_app("BEGIN; $mend; SELECT event_store.resume_projection(name) FROM event_store.projections WHERE status = 'failed'; COMMIT");
	goes_on($name, 'when mended it goes on');
}
cmp_ok(scalar(() = background_complaints($node, $offset) =~ /WARNING:  projection/g), '<=', 13, 'one warning for each, and for each at the last one');

# Replaced, it goes on with the new one.
as_app(table_sql('replaced') . ';' . function_sql('replaced', 1) . q{; SELECT event_store.create_projection('replaced', 'ev', function => 'handle_replaced(event_store.event)')});
for my $version (2 .. 4)
{
	goes_on('replaced', 'a projection under load');
	as_app(function_sql('replaced', $version));
	eventually($node, "SELECT EXISTS (SELECT FROM replaced WHERE handler = $version)", 'its function is replaced: the new one is called');
}

# The owner goes.
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{SET ROLE gone; CREATE TABLE forgotten (position bigint);
	SELECT event_store.create_projection('forgotten', 'ev', statement => 'INSERT INTO forgotten SELECT position FROM events', max_attempts => 2, retry_delay => '1 ms')});
goes_on('forgotten', 'a projection under load');
$node->safe_psql('postgres', 'REASSIGN OWNED BY gone TO other; DROP OWNED BY gone; DROP ROLE gone');
eventually($node, q{SELECT count(*) = 0 FROM pg_stat_activity a WHERE backend_type = 'event_store projector' AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)}, 'the owner is dropped: nobody runs his projections');
goes_on($_, "$_ goes on") for 'witness', 'replaced';
$node->safe_psql('postgres', 'SELECT pg_terminate_backend((' . workers_sql('postgres') . '), 60000)');
goes_on($_, "and $_ with a new worker") for 'witness', 'replaced';
cmp_ok(scalar(() = background_complaints($node, $offset) =~ /\n?[^\n]+/g), '<=', 4, 'the log is not flooded') or diag(background_complaints($node, $offset));
is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.projections WHERE name = 'forgotten'}), 1, 'the view shows it');
$node->safe_psql('postgres', q{SELECT event_store.drop_projection('forgotten')});
is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.projections WHERE name = 'forgotten'}), 0, 'a superuser can drop it');

# The event table goes.
$node->safe_psql('postgres', q{CREATE TABLE briefly (position bigint); GRANT ALL ON briefly TO app; SET ROLE app;
	SELECT event_store.create_projection('briefly_' || i, 'brief', statement => 'INSERT INTO briefly SELECT position FROM events') FROM generate_series(1, 2) i});
{
	$offset = -s $node->logfile;
	my @others = writers($node, 1, 'brief');
	eventually($node, 'SELECT count(*) > 100 FROM briefly', 'projections of another event table');
	is($node->psql('postgres', 'DROP TABLE brief'), 0, 'which is dropped under load');
	$_->finish for @others;
	is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.projections WHERE name LIKE 'briefly%'}), 0, 'its projections are gone');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.projection_checkpoints WHERE projection LIKE 'briefly%'}), 0, 'and their checkpoints');
	goes_on('witness', 'others go on');
	is(background_complaints($node, $offset), '', 'without complaints');
}

# Changes of mode and partitions.  Where a transaction is in flight that is ahead of others one may have to try again.
push @writers, writers($node, 2, 'ev');
as_app(table_sql('altered') . q{; SELECT event_store.create_projection('altered', 'ev', statement => 'INSERT INTO altered SELECT position, stream FROM events')});
for my $change (q{partitions => 4}, q{partitions => 2}, q{mode => 'inline'}, q{mode => 'async'}, q{partitions => 3}, q{mode => 'manual'}, q{mode => 'inline'}, q{partitions => 1}, q{mode => 'manual'}, q{mode => 'async'})
{
	my ($code, $stderr) = (3, 'ERROR:  55006:');

	for (1 .. 100)
	{
		last unless $code == 3 && $stderr =~ /ERROR:  55006:/;
		($code, undef, $stderr) = $node->psql('postgres', "SET ROLE app; SELECT event_store.alter_projection('altered', $change)", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	}
	is("$code $stderr", '0 ', "alter_projection($change)");
	goes_on('altered', 'it goes on') unless $change =~ /manual/ || $node->safe_psql('postgres', q{SELECT mode <> 'async' FROM event_store.projections WHERE name = 'altered'}) eq 't';
	goes_on('witness', 'so does everybody else');
}
for (1 .. 3)
{
	as_app(q{SELECT event_store.pause_projection('altered')});
	my $position = $node->safe_psql('postgres', q{SELECT position FROM event_store.projections WHERE name = 'altered'});
	goes_on('witness', 'while it is paused others go on');
	is($node->safe_psql('postgres', q{SELECT position, status FROM event_store.projections WHERE name = 'altered'}), "$position|paused", 'it does not');
	as_app(q{SELECT event_store.resume_projection('altered')});
	goes_on('altered', 'resumed it does');
}
as_app(q{SELECT event_store.drop_projection('dropped'), event_store.pause_projection('moved')});
my $kept = $node->safe_psql('postgres', 'SELECT count(*) FROM dropped');
is(finish_writers($node, 'postgres', @writers), 0, 'no append has failed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM dropped'), $kept, 'a projection that is dropped leaves its table as it is');
as_app(q{SELECT event_store.resume_projection('moved')});
for my $name (qw(moved set_returning broken tableless columnless unprivileged replaced altered))
{
	caught_up($node, $name, "$name: it catches up");
	is_fold($node, sprintf($streams, $name), $fold, 'every event has been handled once');
}

# A handler that appends to its own event table: one that ends, and one that does not.
$node->safe_psql('postgres', <<'EOT');
SELECT FROM generate_series(1, 50) n, event_store.append('orders', 'order-' || n, 'OrderPlaced', '{}');
SET ROLE app;
CREATE FUNCTION acknowledge(event event_store.event) RETURNS void LANGUAGE sql AS $$
	SELECT FROM event_store.append('orders', event.stream, 'OrderAcked', '{}', expected_version => event.version)
$$;
SELECT event_store.create_projection('manager', 'orders', function => 'acknowledge(event_store.event)', types => '{OrderPlaced}');
EOT
caught_up($node, 'manager', 'a process manager catches up');
is($node->safe_psql('postgres', q{SELECT type, count(*) FROM orders GROUP BY 1 ORDER BY 1}), "OrderAcked|50\nOrderPlaced|50", 'and has answered each event once');
projection_is($node, 'manager', 'own_appends = 0 AND lag_events = 0', 'it ends');
$offset = -s $node->logfile;
as_app(q{
CREATE FUNCTION answer(event event_store.event) RETURNS void LANGUAGE sql AS $$ SELECT FROM event_store.append('orders', 'echo-1', 'Echo', '{}') $$;
SELECT event_store.create_projection('echo', 'orders', function => 'answer(event_store.event)', types => '{Echo}', start_after => 0);
SELECT event_store.append('orders', 'echo-1', 'Echo', '{}')});
projection_is($node, 'echo', 'own_appends > 20', 'one that answers itself is seen in own_appends');
$node->wait_for_log(qr/WARNING:  projection "echo" has appended to its own event table in each of its last 1000 batches/, $offset);
as_app(q{SELECT event_store.pause_projection('echo')});
my $end = $node->safe_psql('postgres', q{SELECT event_store.append('orders', 'order-51', 'OrderPlaced', '{}'); SELECT count(*) FROM orders WHERE type = 'Echo'});
caught_up($node, 'manager', 'once it has been paused');
like($end, qr/\n@{[ $node->safe_psql('postgres', q{SELECT count(*) FROM orders WHERE type = 'Echo'}) ]}$/, 'it appends no more');

# A handler that drops its own projection, and one that tries to run it.
as_app(q{
CREATE TABLE last_words (position bigint);
CREATE FUNCTION leave(event event_store.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO last_words VALUES (event.position); SELECT event_store.drop_projection('leaver') WHERE event.version = 1 $$;
SELECT event_store.create_projection('leaver', 'orders', function => 'leave(event_store.event)', types => '{OrderPlaced}', batch_size => 10);
CREATE FUNCTION recurse(event event_store.event) RETURNS void LANGUAGE sql AS $$ SELECT FROM event_store.run_projection('recursive') $$;
SELECT event_store.create_projection('recursive', 'orders', function => 'recurse(event_store.event)', max_attempts => 1)});
eventually($node, q{SELECT count(*) = 0 FROM event_store.projections WHERE name = 'leaver'}, 'a handler can drop its own projection');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM last_words'), '>', 0, 'what it has written stays');
projection_is($node, 'recursive', q{status = 'failed' AND last_error_sqlstate = '55006'}, 'it cannot run its own projection');
caught_up($node, 'manager', 'others go on');

log_is_clean($node);
$node->stop;
done_testing();
