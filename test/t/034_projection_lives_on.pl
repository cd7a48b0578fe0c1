# Projections in the background go through everything that happens to tables, databases and clusters, and each event
# counts once all the same: maintenance, dump and restore, standbys and promotion.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PGOPTIONS} = '-c statement_timeout=100s';

my $conf = <<'EOT';
shared_preload_libraries = 'event_store'
event_store.max_workers = 12
event_store.max_projectors = 12
max_worker_processes = 40
autovacuum = off
restart_after_crash = off
EOT
my $node = new_server('primary', allows_streaming => 1, no_extension => 1, conf => $conf);
my $elsewhere = new_server('elsewhere', no_extension => 1, conf => $conf);
my $dir = PostgreSQL::Test::Utils::tempdir;
my @keeper = (extra_params => [ '-U', 'keeper' ]);
my @dbs = qw(shop store);

# Two databases that are alike.  Every event of type Odd is parked.
$_->safe_psql('postgres', 'CREATE ROLE keeper LOGIN') for $node, $elsewhere;
for my $db (@dbs)
{
	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER keeper");
	$node->safe_psql($db, <<'EOT', @keeper);
CREATE EXTENSION event_store;
SELECT event_store.create_event_table('ev');
CREATE TABLE by_event (position bigint PRIMARY KEY, stream text, version bigint);
CREATE TABLE by_batch (stream text PRIMARY KEY, n bigint);
CREATE TABLE by_hand (LIKE by_batch INCLUDING ALL);
CREATE TABLE at_once (LIKE by_batch INCLUDING ALL);
CREATE FUNCTION handle(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF event.type = 'Odd' THEN
		RAISE 'odd';
	END IF;
	INSERT INTO by_event VALUES (event.position, event.stream, event.version);
END $$;
SELECT event_store.create_projection('by_event', 'ev', function => 'handle(event_store.event)', partitions => 3, on_error => 'park', max_attempts => 1);
SELECT event_store.create_projection(name, 'ev', mode => mode, types => '{T}', statement => format('INSERT INTO %1$s AS m SELECT stream, count(*) FROM events GROUP BY stream
	ON CONFLICT (stream) DO UPDATE SET n = m.n + excluded.n', name))
  FROM (VALUES ('by_batch', 'async'), ('by_hand', 'manual'), ('at_once', 'inline')) x (name, mode);
SELECT event_store.append('ev', 's-' || n, 'Odd', '{}') FROM generate_series(1, 3) n;
EOT
}
my $fold = q{SELECT stream, count(*) FROM %s WHERE type = 'T' GROUP BY stream};
my @background = qw(by_batch by_event);

# All that a database's projections have made is what its events say; all but the parked ones.
sub exact
{
	my ($server, $db, $text, $table) = @_;
	my $events = sprintf $fold, $table // 'ev';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	caught_up($server, $_, "$text: $_ catches up in $db", $db) for @background;
	is_fold($server, q{SELECT stream, count(*) FROM by_event GROUP BY 1}, $events, 'by_event has each event once', $db);
	is_fold($server, 'TABLE by_batch', $events, 'by_batch has', $db);
	is_fold($server, 'TABLE at_once', $events, 'at_once has', $db);
	is($server->safe_psql($db, q{SELECT count(*) FROM event_store.parked_events WHERE projection = 'by_event' AND type = 'Odd'}), 3, 'three events are parked');
	return;
}

sub goes_on
{
	my ($db, $text, $table) = @_;
	my $newest = $node->safe_psql($db, 'SELECT max(position) FROM ' . ($table // 'ev'));

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	projection_is($node, $_, "position > $newest", "$text: $_ goes on in $db", $db) for @background;
	return;
}

my %writers = map { $_ => [ writers($node, 2, 'ev', $_) ] } @dbs;
goes_on($_, 'two databases') for @dbs;

# Maintenance.
for my $table (map { "event_store.$_" } qw(registered_projections projection_checkpoints projection_parked))
{
	$node->safe_psql('shop', "$_ $table") for 'REINDEX TABLE', 'REINDEX TABLE CONCURRENTLY', 'VACUUM FULL', 'ANALYZE';
	goes_on('shop', "after maintenance of $table");
}
$node->safe_psql('shop', $_) for 'VACUUM FULL ev', 'REINDEX TABLE ev';
goes_on('shop', 'after maintenance of the event table');
$node->safe_psql('shop', 'REINDEX DATABASE shop');
goes_on('shop', 'after REINDEX DATABASE');

# The event table has another name, schema, owner.
my $table = 'ev';
for my $case ([ 'ALTER TABLE ev RENAME TO "Events"', '"Events"' ], [ 'CREATE SCHEMA moved; ALTER TABLE "Events" SET SCHEMA moved', 'moved."Events"' ],
	[ 'ALTER SCHEMA moved RENAME TO again', 'again."Events"' ], [ 'ALTER TABLE again."Events" SET SCHEMA public; ALTER TABLE "Events" RENAME TO ev', 'ev' ])
{
	$node->safe_psql('shop', $case->[0], @keeper);
	$table = $case->[1];
	goes_on('shop', $case->[0], $table);
	is($node->safe_psql('shop', 'SELECT DISTINCT event_table FROM event_store.projections'), $table, 'the view knows');
}

# Dumps in the midst of it.
my $host = $elsewhere->host;
my $port = $elsewhere->port;
my @from = ('-h', $node->host, '-p', $node->port, '-d', 'shop');
my @to = ('-h', $host, '-p', $port);
$elsewhere->safe_psql('postgres', "CREATE DATABASE $_ OWNER keeper TEMPLATE template0") for qw(plain plain_keeper custom custom_keeper);
command_ok([ 'pg_dump', @from, '-f', "$dir/shop.sql" ], 'pg_dump');
command_ok([ 'pg_dump', @from, '-Fc', '-f', "$dir/shop.dump" ], 'pg_dump -Fc');
command_ok([ 'pg_dump', @from, '-U', 'keeper', '-f', "$dir/keeper.sql" ], 'pg_dump by an owner who is no superuser');
command_ok([ 'pg_dump', @from, '-U', 'keeper', '-Fc', '-f', "$dir/keeper.dump" ], 'pg_dump -Fc by him');
is(finish_writers($node, $_, @{ $writers{$_} }), 0, "no append has failed in $_") for @dbs;
exact($node, $_, 'under load') for @dbs;
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @to, '-d', 'plain', '-f', "$dir/shop.sql" ], 'restored by psql');
command_ok([ 'pg_restore', '-j', '2', '-e', @to, '-d', 'custom', "$dir/shop.dump" ], 'restored by pg_restore -j 2');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @to, '-U', 'keeper', '-d', 'plain_keeper', '-f', "$dir/keeper.sql" ], 'restored by him');
command_ok([ 'pg_restore', '-j', '2', '-e', @to, '-U', 'keeper', '-d', 'custom_keeper', "$dir/keeper.dump" ], 'restored by him and pg_restore -j 2');
for my $db (qw(plain custom plain_keeper custom_keeper))
{
	my $state = q{SELECT name, owner, mode, status, partitions, position, events FROM event_store.projections WHERE mode <> 'inline' ORDER BY name};
	my $before = $elsewhere->safe_psql($db, $state);

	like($before, qr/^by_batch\|keeper\|async\|restored\|1\|[1-9]\d*\|[1-9]\d*\nby_event\|keeper\|async\|restored\|3\|[1-9]\d*\|[1-9]\d*\nby_hand\|keeper\|manual\|restored\|1\|0\|0$/,
		"$db: the projections are there with their checkpoints, and wait");
	is($elsewhere->safe_psql($db, q{SELECT status FROM event_store.projections WHERE mode = 'inline'}), 'ready', 'an inline one does not');
	is($elsewhere->safe_psql($db, q{SELECT count(*), min(message) FROM event_store.parked_events}), '3|odd', 'the parked events are there');
	$elsewhere->safe_psql($db, q{SELECT event_store.append('ev', 's-' || n, 'T', '{}') FROM generate_series(1, 50) n}, @keeper);
	is($elsewhere->safe_psql($db, $state), $before, 'they still wait when something is appended');
	my ($code, undef, $stderr) = $elsewhere->psql($db, q{SELECT event_store.run_projection('by_hand')}, @keeper);
	like($stderr, qr/projection "by_hand" is paused\nDETAIL:  It has been restored from a dump/, 'whoever runs one is told');
	$elsewhere->safe_psql($db, q{SELECT event_store.resume_projection(name) FROM event_store.projections WHERE status = 'restored'}, @keeper);
	exact($elsewhere, $db, 'when resumed');
	$elsewhere->safe_psql($db, q{SELECT event_store.run_projection('by_hand')}, @keeper);
	is_fold($elsewhere, 'TABLE by_hand', sprintf($fold, 'ev'), 'by_hand has each event once', $db);
	is($elsewhere->safe_psql($db, q{CREATE OR REPLACE FUNCTION handle(event event_store.event) RETURNS void LANGUAGE sql AS 'INSERT INTO by_event VALUES (event.position, event.stream, event.version)';
		SELECT event_store.retry_parked('by_event')}, @keeper), 3, 'what was parked can be retried');
	is_fold($elsewhere, 'TABLE by_event', 'SELECT position, stream, version FROM ev', 'so nothing is missing', $db);
}

# By a role that is no member of the owner.
$elsewhere->safe_psql('postgres', 'DROP DATABASE ' . $_) for qw(plain plain_keeper custom custom_keeper);
$elsewhere->safe_psql('postgres', 'CREATE ROLE heir LOGIN; CREATE DATABASE inherited OWNER heir TEMPLATE template0');
command_ok([ 'pg_restore', '-j', '2', '-e', '--no-owner', '--no-acl', @to, '-U', 'heir', '-d', 'inherited', "$dir/keeper.dump" ], 'restored by another role');
is($elsewhere->safe_psql('inherited', 'SELECT DISTINCT owner FROM event_store.projections'), 'heir', 'the projections belong to whoever has restored them');
$elsewhere->safe_psql('inherited', q{SELECT event_store.resume_projection(name) FROM event_store.projections WHERE status = 'restored'}, extra_params => [ '-U', 'heir' ]);
exact($elsewhere, 'inherited', 'when resumed');

# A standby, and its promotion in the midst of the load.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
%writers = map { $_ => [ writers($node, 2, 'ev', $_) ] } @dbs;
goes_on($_, 'while there is a standby') for @dbs;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'event_store%'}), 0, 'no projection is run on a standby');
is($standby->safe_psql('shop', q{SELECT count(*), bool_and(position > 0 OR mode <> 'async') FROM event_store.projections}), '4|t', 'the view of projections can be read there');
is($standby->safe_psql('shop', q{SELECT count(*) FROM event_store.parked_events}), 3, 'and that of parked events');
for my $call (q{run_projection('by_hand')}, q{pause_projection('by_batch')}, q{retry_parked('by_event')}, q{create_projection('x', 'ev', statement => 'SELECT')})
{
	my (undef, undef, $stderr) = $standby->psql('shop', "SELECT event_store.$call", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($stderr, qr/ERROR:  25006: cannot execute \w+\(\) (?:during recovery|in a read-only transaction)/, "$call is refused there");
}
$node->stop('immediate');
$_->finish for map { @$_ } values %writers;
$standby->promote;
exact($standby, $_, 'after the promotion') for @dbs;
$standby->safe_psql($_, q{SELECT event_store.append('ev', 's-' || n, 'T', '{}') FROM generate_series(1, 50) n}) for @dbs;
exact($standby, $_, 'and afterwards') for @dbs;
$standby->restart;
$standby->safe_psql($_, q{SELECT event_store.append('ev', 's-' || n, 'T', '{}') FROM generate_series(1, 50) n}) for @dbs;
exact($standby, $_, 'after a restart') for @dbs;

# The extension goes.
@{ $writers{store} } = writers($standby, 2, 'ev', 'store');
$standby->safe_psql('store', 'BEGIN; LOCK TABLE ev; DROP EXTENSION event_store CASCADE; DROP TABLE IF EXISTS ev; COMMIT');
$_->finish for @{ $writers{store} };
eventually($standby, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'event_store projector' AND datname = 'store'}, 'after DROP EXTENSION no projection is run');
$standby->safe_psql('store', q{CREATE EXTENSION event_store; SELECT event_store.create_event_table('ev'); TRUNCATE by_batch;
	SELECT event_store.create_projection('by_batch', 'ev', statement => 'INSERT INTO by_batch SELECT stream, count(*) FROM events GROUP BY 1'); SELECT event_store.append('ev', 's-1', 'T', '{}')}, @keeper);
caught_up($standby, 'by_batch', 'when it comes again there can be others', 'store');
exact($standby, 'shop', 'the other database goes on');

log_is_clean($_) for $node, $elsewhere, $standby;
$_->stop for $standby, $elsewhere;
done_testing();
