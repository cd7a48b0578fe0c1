# Workers in many databases, and commands that want a database for themselves.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# So that a command that hangs fails.
$ENV{PGOPTIONS} = '-c statement_timeout=100s';

# With debug1 the postmaster logs every worker that it starts.
my $conf = <<'EOT';
shared_preload_libraries = 'event_store'
max_connections = 40
shared_buffers = 32MB
autovacuum = off
log_min_messages = debug1
EOT
my $node = new_server('databases', allows_streaming => 1, conf => <<"EOT");
$conf
event_store.max_workers = 2
max_worker_processes = 40
EOT

# Of the log, the lines from here on.
my $offset = 0;
sub log_from_here { $offset = -s $node->logfile; return; }
sub logged { my ($pattern) = @_; my @found = slurp_file($node->logfile, $offset) =~ /$pattern/g; return scalar @found; }

# How often a worker has been started for that database.
sub starts
{
	my ($db) = @_;
	my $oid = $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = '$db'");
	return logged(qr/starting background worker process "event_store worker for database $oid"/);
}

# What background processes complain of; they have no user in their lines of the
# log.
sub complaints { return join "\n", grep { /\[\d+\] \w{5} (?:WARNING|ERROR|FATAL|PANIC):/ } split /\n/, slurp_file($node->logfile, $offset); }

my $append_sql = q{SELECT first_position FROM event_store.append('ev', 's-1', 'T', '{}');};
sub append { my ($db) = @_; return $node->safe_psql($db, $append_sql); }

# The worker has notified the newest checkpoint and recorded it.
my $served_sql = q{SELECT notifications > 0 AND checkpoint = (SELECT mark FROM event_store.feed_marks m WHERE m.event_table = f.event_table) FROM event_store.feeds f};
sub served
{
	my ($db, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($db, $served_sql), $name);
	return;
}

# Waits until the worker has served them all; returns the greatest number of
# workers that were there at once.
sub all_served
{
	my @left = @_;
	my $most = 0;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		@left = grep {
			my ($done, $workers) = split /\|/, $node->safe_psql($_, "SELECT ($served_sql), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_store worker')");
			$most = $workers if $workers > $most;
			$done ne 't';
		} @left;
		return $most unless @left;
		usleep(100_000);
	}
	die "not served: @left";
}

sub set { my ($setting, $value) = @_; $node->safe_psql('postgres', "ALTER SYSTEM SET $setting = $value"); return; }
sub reload { $node->safe_psql('postgres', 'SELECT pg_reload_conf()'); return; }

# Twenty databases, copied from one that has a worker most of the time.
$node->safe_psql('postgres', 'CREATE DATABASE shape');
$node->safe_psql('shape', q{CREATE EXTENSION event_store; SELECT event_store.create_event_table('ev')});
append('shape');
my @databases = map { "db$_" } 1 .. 20;
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE shape STRATEGY file_copy") for @databases;
append($_) for @databases;
cmp_ok(all_served(@databases), '<=', 2, 'two workers serve twenty databases, no more than two at once');

# Where workers have to look again and again, since somebody is in flight, they
# take turns all the same.
{
	my @busy = map { $node->background_psql($_) } @databases[0, 1];
	$_->query_safe(q{BEGIN; SELECT event_store.append('ev', 's-2', 'T', '{}')}) for @busy;
	append($_) for @databases;
	all_served(@databases[2 .. 19]);
	pass('two databases in which somebody is in flight do not keep the others from being served');

	# Waiting, with or without a worker.
	my @waiters = map { [ $_, $node->background_psql($_) ] } @databases[2 .. 9];
	for (@waiters)
	{
		my ($db, $psql) = @$_;
		$psql->query_until(qr/waiting/, "\\echo waiting\nSELECT 'got ' || event_store.wait_for_events('ev', (SELECT max(position) FROM ev), '60 s');\n");
	}
	$node->poll_query_until('postgres', q{SELECT count(*) = 8 FROM pg_stat_activity WHERE query LIKE '%got%wait_for_events%' AND wait_event_type = 'Extension'})
	  or die 'nobody waits';
	my %expected = map { $_->[0] => append($_->[0]) } @waiters;
	my %got = map { my ($got) = $_->[1]->query_until(qr/got \d+/, "\n") =~ /got (\d+)/; $_->[1]->quit; $_->[0] => $got } @waiters;
	is_deeply(\%got, \%expected, 'who waits for events gets them, whether or not it is the turn of his database');
	$_->query_safe('COMMIT') for @busy;
	all_served(@databases);
	pass('in the end all are served');
	$_->quit for @busy;
}

# From here on, none has to leave for another one.
set('event_store.max_workers', 30);
reload();

# A client that appends all the time: none of the following may disturb it.
my $client = $node->background_psql('db1');
$client->set_query_timer_restart;
$node->safe_psql('db1', 'CREATE TABLE enough ()');
$client->query_until(qr/go/, <<'EOT');
SET statement_timeout = 0;
\echo go
DO $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM enough) LOOP
        PERFORM event_store.append('ev', 'busy', 'T', '{}');
        COMMIT;
        PERFORM pg_sleep(0.005);
    END LOOP;
END $$;
EOT

# A database that is restored, and in which nobody appends.
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
{
	local %ENV = $node->_get_env();
	my $dump = PostgreSQL::Test::Utils::tempdir . '/shape.sql';

	append('shape') for 1 .. 3;
	system_or_bail('pg_dump', '-f', $dump, 'shape');
	system_or_bail('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $dump, '-o', '/dev/null');
}
comes($node, 'restored', 'a restored database gets a worker without an append');
served('restored', 'which notifies and records the final checkpoint');
is($node->safe_psql('restored', q{SELECT mark FROM event_store.feed_marks}), 4, 'of its own log');

# A session that tries to drop a database with a worker in which somebody else is,
# too: it waits for five seconds until it fails.
sub start_drop
{
	my ($db) = @_;
	my $user = $node->background_psql($db);
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	append($db);
	worker($node, $db);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->{stdin} .= "\\set VERBOSITY verbose\nDROP DATABASE $db;\n\\warn done\n";
	$session->{run}->pump_nb;
	eventually($node, "SELECT NOT EXISTS (@{[ workers_sql($db) ]}) AND EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid AND state = 'active')",
		"the worker of $db leaves for DROP DATABASE");
	return { db => $db, user => $user, session => $session, pid => $pid };
}

sub fails
{
	my ($drop, $expected, $name) = @_;
	my $session = $drop->{session};

	pump_until($session->{run}, $session->{timeout}, \$session->{stderr}, qr/done|terminated|connection/);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($session->{stderr}, $expected, $name);
	comes($node, $drop->{db}, 'the worker comes back');
	append($drop->{db});
	served($drop->{db}, 'and serves');
	$_->{run}->kill_kill for $session, $drop->{user};
	return;
}

my $in_use = start_drop('db5');

# Commands that want the database for themselves.
log_from_here();
$node->safe_psql('postgres', q{SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''});
my $db = 'db2';
for my $case (
	[ 'ALTER DATABASE ... RENAME', "ALTER DATABASE $db RENAME TO renamed", 'renamed' ],
	[ 'ALTER DATABASE ... RENAME in a transaction', "BEGIN; ALTER DATABASE renamed RENAME TO $db; COMMIT", $db ],
	[ 'ALTER DATABASE ... SET TABLESPACE', "ALTER DATABASE $db SET TABLESPACE elsewhere", $db ],
	[ 'CREATE DATABASE ... TEMPLATE', "CREATE DATABASE copy TEMPLATE $db", $db ],
	[ 'CREATE DATABASE ... TEMPLATE, otherwise written', "CREATE DATABASE copy2 TEMPLATE = '$db' STRATEGY = file_copy", $db ])
{
	my ($name, $sql, $now) = @$case;

	append($db);
	my $pid = worker($node, $db);
	is($node->psql('postgres', $sql), 0, "$name works while there is a worker");
	$db = $now;
	isnt(worker($node, $db), $pid, 'afterwards there is another one');
	append($db);
	served($db, 'which serves');
}
append('copy');
comes($node, 'copy', 'in a copy the first append starts a worker');
served('copy', 'which serves');
is(complaints(), '', 'no worker complains');

# Without TEMPLATE it is template1 that is copied.
$node->safe_psql('template1', q{CREATE EXTENSION event_store; SELECT event_store.create_event_table('ev')});
append('template1');
worker($node, 'template1');
is($node->psql('postgres', 'CREATE DATABASE plain'), 0, 'CREATE DATABASE works while template1 has a worker');
comes($node, 'template1', 'which comes back');

# DROP DATABASE at any moment of a worker's life.
log_from_here();
my @failed;
for my $n (1 .. 10)
{
	$node->safe_psql('postgres', 'CREATE DATABASE brief TEMPLATE shape');
	append('brief') if $n % 3;
	worker($node, 'brief') if $n % 3 == 1;
	push @failed, $n if $node->psql('postgres', 'DROP DATABASE brief') != 0;
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS brief WITH (FORCE)') if @failed;
}
is("@failed", '', 'DROP DATABASE works whatever its worker is doing');
is(complaints(), '', 'without complaints of the workers');

# Where it fails, the worker comes back.
fails($in_use, qr/ERROR:  55006: database "db5" is being accessed by other users/, 'DROP DATABASE fails where somebody else is');
for (
	[ 'db6', 'cancel', qr/ERROR:  57014/ ],
	[ 'db7', 'terminate', qr/FATAL:  57P01/ ])
{
	my ($db, $how, $expected) = @$_;
	my $drop = start_drop($db);

	$node->safe_psql('postgres', "SELECT pg_${how}_backend($drop->{pid})");
	fails($drop, $expected, "pg_${how}_backend() ends it");
}
append('db8');
worker($node, 'db8');
for (
	[ '55006', 'db8', 'DROP DATABASE db8' ],
	[ '25001', 'postgres', 'BEGIN; DROP DATABASE db8' ],
	[ '42P04', 'postgres', 'ALTER DATABASE db8 RENAME TO db9' ],
	[ '42P04', 'postgres', 'CREATE DATABASE db9 TEMPLATE db8' ])
{
	my ($sqlstate, $in, $sql) = @$_;
	my ($result, $stdout, $stderr) = $node->psql($in, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	like($stderr, qr/ERROR:  $sqlstate/, "$sql fails");
	comes($node, 'db8', 'the worker is there afterwards');
}

# Who may not run such a command does not disturb the worker by trying.
{
	$node->safe_psql('postgres', 'CREATE ROLE nobody; CREATE ROLE creator CREATEDB');
	append('db9');
	my $pid = worker($node, 'db9');
	for (
		[ 'nobody', 'DROP DATABASE db9' ],
		[ 'nobody', 'ALTER DATABASE db9 RENAME TO mine' ],
		[ 'nobody', 'ALTER DATABASE db9 SET TABLESPACE elsewhere' ],
		[ 'nobody', 'CREATE DATABASE mine TEMPLATE db9' ],
		[ 'creator', 'CREATE DATABASE mine TEMPLATE db9' ])
	{
		my ($role, $sql) = @$_;

		refused($node, "SET ROLE $role; $sql", '42501', '', "$role may not run: $sql");
		is(worker($node, 'db9'), $pid, 'the worker stays');
	}
}

# The client has appended all the time.
$node->safe_psql('db1', 'INSERT INTO enough DEFAULT VALUES');
is($client->query('SELECT 1'), 1, 'a client in another database has not been disturbed');
cmp_ok($node->safe_psql('db1', q{SELECT event_store.stream_version('ev', 'busy')}), '>', 100, 'and has appended all the time');
$client->quit;
served('db1', 'its events are notified and recorded');

# A restart with fewer background workers than databases: there are two, beside
# our launcher and the server's own.  Databases that nobody can connect to are
# left alone.
$node->safe_psql('postgres', 'ALTER DATABASE db10 ALLOW_CONNECTIONS false');
set('max_worker_processes', 4);
$node->stop;
log_from_here();
$node->start;
my $start = time;
cmp_ok(all_served(grep { $_ ne 'db10' } @databases, 'restored', 'copy', 'copy2', 'shape'), '<=', 2,
	'after a restart with too few background workers they take turns too');
cmp_ok(time - $start, '<', 60, 'without long pauses');
is(starts($_), 0, "nobody tries to get into $_") for 'db10', 'template0';
like(complaints(), qr/\A.*WARNING:  event_store has no background worker.*\z/, 'that there are too few is all they say, once');

log_is_clean($node);
$node->stop;

# There are slots for three event tables.  A database that is dropped leaves
# its own to others.
$node = new_server('slots', no_extension => 1, conf => "$conf\nevent_store.max_event_tables = 3\n");
$offset = 0;
for my $n (1 .. 5)
{
	$node->safe_psql('postgres', "CREATE DATABASE slot$n");
	$node->safe_psql("slot$n", 'CREATE EXTENSION event_store');
	$node->safe_psql("slot$n", "SELECT event_store.create_event_table('t$_')") for 1 .. 3;
	$node->safe_psql("slot$n", "SELECT event_store.append('t$_', 's-1', 'T', '{}')") for 1 .. 3;
	ok($node->poll_query_until("slot$n", 'SELECT count(*) = 3 AND bool_and(notifications > 0) FROM event_store.feeds'),
		"database $n is served where slots are few");
	$node->safe_psql('postgres', "DROP DATABASE slot$n");
}
is(logged(qr/more than 3/), 0, 'there were always enough');
log_is_clean($node);
$node->stop;
done_testing();
