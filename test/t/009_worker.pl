# The life of the launcher and the workers: when they come, when they leave, and
# what they come through.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# So that a command that hangs fails.
$ENV{PGOPTIONS} = '-c statement_timeout=100s';

# With debug1 the postmaster logs every worker that it starts.  There is room for
# all: none has to leave for another one.
my $node = new_server('worker', allows_streaming => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
event_store.max_workers = 12
max_worker_processes = 16
max_prepared_transactions = 5
max_connections = 40
autovacuum = off
log_min_messages = debug1
EOT

# Of the log, the lines from here on.
my $offset = 0;
sub log_from_here { $offset = -s $node->logfile; return; }
sub logged { my ($pattern) = @_; my @found = slurp_file($node->logfile, $offset) =~ /$pattern/g; return scalar @found; }

# How often a worker has been started for that database.
sub oid { my ($db) = @_; return $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = '$db'"); }
sub starts { my ($db) = @_; my $oid = oid($db); return logged(qr/starting background worker process "event_store worker for database $oid"/); }

# What background processes complain of; they have no user in their lines of the
# log.
sub complaints { return join "\n", grep { /\[\d+\] \w{5} (?:WARNING|ERROR|FATAL|PANIC):/ } split /\n/, slurp_file($node->logfile, $offset); }

my $launcher_sql = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_store launcher'};
sub event_table { my ($table) = @_; return "SELECT event_store.create_event_table('$table');"; }
sub append_sql { my ($table) = @_; return "SELECT first_position FROM event_store.append('$table', 's-1', 'T', '{}');"; }

# The position.
sub append { my ($db, $table, $on) = @_; return ($on // $node)->safe_psql($db, append_sql($table)); }

# What the worker itself has notified about that table since the server's start.
sub notifications_sql { my ($table) = @_; return "SELECT notifications FROM event_store.feeds WHERE event_table = '$table'::regclass"; }
sub notifications { my ($db, $table) = @_; return $node->safe_psql($db, notifications_sql($table)); }

sub notified
{
	my ($db, $table, $count, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($db, notifications_sql($table), $count), $name);
	return;
}

# A session that listens to some tables.
sub listener
{
	my ($db, @tables) = @_;
	my $self = { psql => $node->background_psql($db), heard => '' };

	$self->{psql}->set_query_timer_restart;
	for my $table (@tables)
	{
		my $channel = $node->safe_psql($db, "SELECT event_store.channel('$table')");
		$self->{channels}{$table} = $channel;
		$self->{psql}->query_safe(qq{LISTEN "$channel"});
	}
	return $self;
}

# The payloads so far.
sub heard
{
	my ($self, $table) = @_;

	$self->{heard} .= $self->{psql}->query_safe('SELECT NULL') . "\n";
	return $self->{heard} =~ /Asynchronous notification "$self->{channels}{$table}" with payload "(\d+)"/g;
}

sub hears
{
	my ($self, $table, $payload, $name) = @_;
	my @heard;

	for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		@heard = heard($self, $table);
		last if grep { $_ == $payload } @heard;
		usleep(20_000);
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(scalar(grep({ $_ == $payload } @heard)), $name) or diag("heard: @heard, not $payload");
	return;
}

# A session that waits for events.
sub waiter
{
	my ($db, $table, $after) = @_;
	my $psql = $node->background_psql($db);

	$psql->query_until(qr/waiting/, "\\echo waiting\nSELECT 'got ' || event_store.wait_for_events('$table', $after, '60 s');\n");
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%got%wait_for_events%' AND wait_event_type = 'Extension'})
	  or die 'nobody waits';
	return $psql;
}

sub got
{
	my ($psql, $position, $name) = @_;
	my $found = $psql->query_until(qr/got \d+/, "\n");

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($found, qr/got $position$/m, $name);
	$psql->quit;
	return;
}

sub set { my ($setting, $value) = @_; $node->safe_psql('postgres', "ALTER SYSTEM SET $setting = $value"); return; }
sub reset_all { $node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL'); return; }
sub reload { $node->safe_psql('postgres', 'SELECT pg_reload_conf()'); return; }

# No event tables, no workers.
my $launcher = $node->safe_psql('postgres', $launcher_sql);
like($launcher, qr/^\d+$/, 'there is one launcher');
eventually($node, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'event_store launcher' AND query <> '' AND datname IS NULL AND xact_start IS NULL},
	'which says what it does, is in no database and in no transaction');
$node->wait_for_log(qr/starting background worker process "event_store worker for database @{[ oid('postgres') ]}"/);
eventually($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'event_store worker'},
	'a worker looks into each database when the server starts, and leaves where there are no event tables');

# A database that comes later.
$node->safe_psql('postgres', 'CREATE DATABASE late');
$node->safe_psql('late', 'CREATE EXTENSION event_store');
is(starts('late'), 0, 'no worker is started for a database without event tables');
$node->safe_psql('late', event_table('ev') . event_table('other'));
my $position = append('late', 'ev');
comes($node, 'late', 'a database that was made after the start of the server gets a worker with its first event table');
ok($node->poll_query_until('late', "SELECT mark = $position FROM event_store.feed_marks WHERE event_table = 'ev'::regclass"), 'which records how far standbys can read');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname <> 'late'"), 0, 'the others still have none');

# Idle, it has nothing that could be in anybody's way.
eventually($node, <<'EOT', 'an idle worker has no transaction, no snapshot and no lock, and says that it waits');
SELECT bool_and(state = 'idle' AND query = 'waiting for appends' AND xact_start IS NULL AND backend_xid IS NULL AND backend_xmin IS NULL
                AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
  FROM pg_stat_activity a
 WHERE backend_type = 'event_store worker'
EOT

# It notifies; and it is the worker that does.
my $listener = listener('late', 'ev', 'other');
my $before = notifications('late', 'ev');
$position = append('late', 'ev');
hears($listener, 'ev', $position, 'an append is notified');
notified('late', 'ev', $before + 1, 'by the worker');
my $waiter = waiter('late', 'other', 0);
$position = append('late', 'other');
got($waiter, $position, 'who waits for events gets them');
hears($listener, 'other', $position, 'listeners of that table hear of them too');

# Settings are reloaded by a running worker: of many appends in a row, each of
# which it looks at, it notifies no more than the interval allows.
{
	my $interval = 0.4;
	my $pid = worker($node, 'late');
	my $as_allowed = sub {
		my $many = <<'EOT';
DO $$
DECLARE
    p bigint;
BEGIN
    FOR i IN 1 .. 500 LOOP
        SELECT first_position INTO p FROM event_store.append('ev', 's-1', 'T', '{}');
        COMMIT;
        PERFORM event_store.wait_for_events('ev', p - 1);
        COMMIT;
    END LOOP;
END $$;
EOT
		my ($count, $time) = split /\|/, $node->safe_psql('late', <<"EOT");
SELECT notifications AS before, clock_timestamp() AS start FROM event_store.feeds WHERE event_table = 'ev'::regclass \\gset
$many
SELECT notifications - :before, extract(epoch FROM clock_timestamp() - :'start') FROM event_store.feeds WHERE event_table = 'ev'::regclass;
EOT
		return $count <= 2 + $time / $interval;
	};
	my $tries;

	set('event_store.notify_interval', "'${interval}s'");
	reload();
	for ($tries = 1; $tries <= 50 && !$as_allowed->(); $tries++) { }
	cmp_ok($tries, '<=', 50, 'a running worker takes over a longer notify_interval');
	reset_all();
	reload();
	for ($tries = 1; $tries <= 50 && $as_allowed->(); $tries++) { }
	cmp_ok($tries, '<=', 50, 'and a shorter one');
	is(worker($node, 'late'), $pid, 'it was the same worker all the time');
	$position = append('late', 'ev');
	hears($listener, 'ev', $position, 'the last append is notified');
	my @heard = heard($listener, 'ev');
	is(join(' ', @heard), join(' ', sort { $a <=> $b } @heard), 'the checkpoints only ever rose');
}

# Idle for long it leaves, and the next append brings it back.
log_from_here();
set('event_store.worker_idle_timeout', "'1s'");
reload();
leaves($node, 'late', 'a running worker takes over worker_idle_timeout and leaves when idle for so long');
reset_all();
reload();
$position = append('late', 'ev');
hears($listener, 'ev', $position, 'the append that brings it back is notified');
is(starts('late'), 1, 'it was started once for that');

# Who commits a prepared transaction does not notify; so what is heard of it
# comes from a worker.
my $prepare_sql = 'BEGIN; ' . append_sql('ev') . q{PREPARE TRANSACTION 'p'};
{
	my $prepared = $node->safe_psql('late', $prepare_sql);
	my $pid = worker($node, 'late');

	$node->safe_psql('late', qq{SELECT pg_terminate_backend($pid, 60000); COMMIT PREPARED 'p'});
	hears($listener, 'ev', $prepared, 'what was committed when the worker had been terminated is notified');
	isnt(worker($node, 'late'), $pid, 'by another one');
}

# The launcher terminated, and a worker cancelled, which may start anew then.
$node->safe_psql('postgres', 'CREATE DATABASE later');
$node->safe_psql('later', 'CREATE EXTENSION event_store;' . event_table('ev'));
{
	my $pid = worker($node, 'late');
	my $undisturbed = worker($node, 'later');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher, 60000), pg_cancel_backend($pid)");
	hears($listener, 'ev', append('late', 'ev'), 'an append is notified without a launcher');
	my $prepared = $node->safe_psql('late', "$prepare_sql; COMMIT PREPARED 'p'");
	hears($listener, 'ev', $prepared, 'pg_cancel_backend(worker) does no harm');
	eventually($node, "SELECT count(*) = 1 FROM ($launcher_sql) l WHERE pid <> $launcher", 'a launcher that was terminated comes back');
	is(worker($node, 'later'), $undisturbed, 'other workers go on without it');
	$launcher = $node->safe_psql('postgres', $launcher_sql);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($launcher)");
}

my $index;

# Trouble.  In the database "later" a worker cannot start, since a file is not
# there.  In the other one, tables that are locked do not stop the others: "ev"
# altogether, of "third" only the index that the worker reads.
{
	my $file = $node->data_dir . '/base/' . oid('later') . '/PG_VERSION';
	my $session = $node->background_psql('later', on_error_stop => 0);
	my $channel = $session->query_safe(q{SELECT event_store.channel('ev')});

	$node->safe_psql('late', event_table('third'));
	$index = $node->safe_psql('late', q{SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'third'::regclass AND indkey::text = '1'});
	my @locker = map { $node->background_psql('late') } 1 .. 2;
	my $third = listener('late', 'third');
	my ($in_ev) = $locker[0]->query_safe('BEGIN; LOCK TABLE ev;' . append_sql('ev')) =~ /(\d+)/;
	my ($in_third) = $locker[1]->query_safe('BEGIN;' . append_sql('third') . "REINDEX INDEX $index;") =~ /(\d+)/;

	my $late = worker($node, 'late');
	my $later = worker($node, 'later');
	log_from_here();
	$session->query_safe(qq{LISTEN "$channel"});
	rename $file, "$file.away" or die $!;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($_, 60000)") for $later, $late;

	my $notified = qr/notification "$channel" with payload/;
	like($session->query_safe(append_sql('ev')), $notified, 'where there is no worker the appending transaction notifies by itself');
	$node->wait_for_log(qr/FATAL:  .*is not a valid data directory/, $offset);
	like($session->query_safe(append_sql('ev')), $notified, 'as it does where none can start');
	rename "$file.away", $file or die $!;

	isnt(worker($node, 'late'), $late, 'where tables are locked, another worker starts');
	my $before = notifications('late', 'other');
	hears($listener, 'other', append('late', 'other'), 'a table is notified while others are locked');
	notified('late', 'other', $before + 1, 'by the worker');
	$locker[0]->query_safe('COMMIT');
	hears($listener, 'ev', $in_ev, 'the one that was locked is notified when it is free again');
	$locker[1]->query_safe('COMMIT');
	hears($third, 'third', $in_third, 'so is the one of which an index was locked');
	unlike(complaints(), qr/timeout|deadlock/, 'the worker has not waited for locks');

	isnt(worker($node, 'later'), $later, 'the worker that could not start comes back');
	cmp_ok(starts('later'), '<=', 3, 'the launcher has not tried too often');
	my (@ended, @pauses);    # from each end to the next start
	my $oid = oid('later');
	for (split /\n/, slurp_file($node->logfile, $offset))
	{
		my ($hour, $minute, $second) = /^\S+ (\d+):(\d+):([\d.]+)/ or next;
		my $time = ($hour * 60 + $minute) * 60 + $second;
		push @ended, $time if /\(PID $later\) exited with exit code 1/ || /FATAL:  "base\/$oid" is not/;
		push @pauses, $time - $ended[-1] + ($time < $ended[-1] ? 86400 : 0)
		  if @ended && /starting background worker process "event_store worker for database $oid"/;
	}
	cmp_ok($pauses[0], '>=', 0.9, 'it waits a second before it starts another worker');
	cmp_ok($pauses[1], '>=', 1.9, 'and two before the next');
	$_->quit for $session, @locker, $third->{psql};
}

# What a database's settings say does not disturb its worker.
{
	$node->safe_psql('postgres', $_) for 'CREATE DATABASE odd', 'CREATE ROLE nobody',
	  'ALTER DATABASE odd SET role = nobody',
	  'ALTER DATABASE odd SET default_transaction_read_only = on',
	  q{ALTER DATABASE odd SET default_transaction_isolation = 'serializable'},
	  'ALTER DATABASE odd SET default_transaction_deferrable = on',
	  q{ALTER DATABASE odd SET statement_timeout = '1ms'},
	  q{ALTER DATABASE odd SET search_path = nowhere},
	  'ALTER DATABASE odd SET row_security = off';
	log_from_here();
	{
		local $ENV{PGOPTIONS} = '-c default_transaction_read_only=off -c statement_timeout=100s -c search_path=public -c role=none';
		$node->safe_psql('odd', 'CREATE EXTENSION event_store;' . event_table('ev'));
		$position = append('odd', 'ev');
		ok($node->poll_query_until('odd', "SELECT mark = $position FROM event_store.feed_marks WHERE event_table = 'ev'::regclass"),
			'a worker does its work whatever the settings of its database');
		ok($node->poll_query_until('odd', 'SELECT notifications > 0 FROM event_store.feeds'), 'it notifies too');
	}
	is(complaints(), '', 'without complaints');
}

# The extension goes, or the last event table: the worker leaves, stays away,
# and comes back with the next event table.
{
	my $db = 'gone';
	$node->safe_psql('postgres', $_) for "CREATE DATABASE $db", 'CREATE ROLE owner SUPERUSER';
	for my $case (
		[ 'DROP EXTENSION ... CASCADE', 'DROP EXTENSION event_store CASCADE' ],
		[ 'DROP OWNED', 'DROP OWNED BY owner CASCADE' ],
		[ 'DROP TABLE', 'DROP TABLE ev' ],
		[ 'DROP SCHEMA of the event table', 'CREATE SCHEMA s; ALTER TABLE ev SET SCHEMA s; DROP SCHEMA s CASCADE' ])
	{
		my ($name, $sql) = @$case;

		log_from_here();
		$node->safe_psql($db, 'SET ROLE owner; CREATE EXTENSION IF NOT EXISTS event_store; DROP TABLE IF EXISTS ev;' . event_table('ev'));
		my $mine = listener($db, 'ev');
		hears($mine, 'ev', append($db, 'ev'), "before $name the worker is there");
		worker($node, $db);
		$node->safe_psql($db, $sql);
		leaves($node, $db, "$name makes the worker leave");
		$mine->{psql}->quit;
		# It may have left before the transaction, whose locks are gone, wakes it.
		cmp_ok(starts($db), '<=', 2, 'it was not started again and again');
		is(complaints(), '', 'and had nothing to complain of');
	}

	# At any moment of a worker's life.
	log_from_here();
	for my $n (1 .. 8)
	{
		$node->safe_psql($db, 'CREATE EXTENSION IF NOT EXISTS event_store; DROP TABLE IF EXISTS ev;' . event_table('ev') . append_sql('ev') x $n);
		$node->safe_psql($db, 'DROP EXTENSION event_store CASCADE');
	}
	leaves($node, $db, 'the worker leaves also where the extension comes and goes');
	is(complaints(), '', 'without complaints');
	cmp_ok(starts($db), '<=', 9, 'and without being started again and again');
	$node->safe_psql($db, 'CREATE EXTENSION event_store; DROP TABLE ev;' . event_table('ev'));
	append($db, 'ev');
	comes($node, $db, 'and comes back');
	$node->safe_psql('postgres', "DROP DATABASE $_") for $db, 'odd';
}

# kill -9 of the worker: the postmaster starts all processes anew.
{
	my $prepared = $node->safe_psql('late', $prepare_sql);
	my $pid = worker($node, 'late');

	$listener->{psql}->quit;
	kill 'KILL', $pid;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
	comes_back($node);
	comes($node, 'late', 'after kill -9 of a worker there is another one');
	comes($node, 'later', 'so there is in other databases');
	ok($node->poll_query_until('late', notifications_sql('other'), 1), 'the final checkpoint is notified without an append');
	$listener = listener('late', 'ev', 'other');
	hears($listener, 'other', append('late', 'other'), 'appends are notified');
	$node->safe_psql('late', q{COMMIT PREPARED 'p'});
	hears($listener, 'ev', $prepared, 'so is a transaction that had been prepared before');
	$listener->{psql}->quit;
}

# Restarts.  Of one table a file is not there meanwhile: looking at it fails.
my $file = $node->data_dir . '/' . $node->safe_psql('late', "SELECT pg_relation_filepath('$index')");
ok($node->stop('smart', fail_ok => 1), 'a smart shutdown does not wait for the workers');
$node->backup_fs_cold('cold');
rename $file, "$file.away" or die $!;
log_from_here();
$node->start;
comes($node, 'late', 'after a restart the worker comes by itself');
comes($node, 'later', 'in each database that has event tables');
ok($node->poll_query_until('late', notifications_sql($_), 1), "the final checkpoint of table $_ is notified, once") for 'ev', 'other';
$node->wait_for_log(qr/ERROR:  could not open file .*\n.*CONTEXT:  looking at the event table with OID/, $offset);
rename "$file.away", $file or die $!;
ok($node->poll_query_until('late', notifications_sql('third'), 1), 'so is that of a table that could not be read at first');
eventually($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname IN ('postgres', 'template1')},
	'in the databases without event tables the worker does not stay');
is(starts('template0'), 0, 'nobody tries to get into template0');
like(complaints(), qr/\A(?:.*ERROR:  could not open file .*\n?){1,4}\z/, 'a few lines about the file is all that they complain of');

# Off for the whole server: the worker only serves those who wait.
set('event_store.notify', 'off');
set('event_store.worker_idle_timeout', -1);
{
	my $psql = $node->background_psql('late', on_error_stop => 0);
	$psql->query_safe('BEGIN; ' . append_sql('ev'));
	ok($node->stop('fast', fail_ok => 1), 'a fast shutdown in the midst of an append');
	$psql->quit;
}
$node->start;
worker($node, 'late');
$listener = listener('late', 'ev');
$waiter = waiter('late', 'ev', append('late', 'ev'));
$position = append('late', 'ev');
got($waiter, $position, 'with event_store.notify = off who waits is woken all the same');
# When the second append has been published, the first one's round is over.
is(notifications('late', 'ev'), 0, 'the worker notifies nobody');
is(join(' ', heard($listener, 'ev')), '', 'nor does anybody else');
reset_all();
reload();
hears($listener, 'ev', $position, 'turned on again while it runs, the worker makes up for it');
$listener->{psql}->quit;

# A standby has neither launcher nor worker, until it is promoted.
{
	my $standby = PostgreSQL::Test::Cluster->new('worker_standby');
	my $any = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'event_store%'};

	$standby->init_from_backup($node, 'cold', has_streaming => 1);
	$standby->start;
	$position = append('late', 'ev');
	$node->wait_for_catchup($standby);
	is($standby->safe_psql('late', $any), 0, 'no launcher and no worker on a standby');
	unlike(slurp_file($standby->logfile), qr/event_store worker/, 'and there was none');
	$standby->promote;
	ok($standby->poll_query_until('late', "SELECT ($any AND datname = 'late') = 1 AND ($any AND datname IS NULL) = 1"), 'they come with promotion');
	ok($standby->poll_query_until('late', notifications_sql('ev'), 1), 'and the final checkpoint is notified');
	append('late', 'ev', $standby);
	ok($standby->poll_query_until('late', notifications_sql('ev'), 2), 'so are appends');
	log_is_clean($standby);
	$standby->stop;
}

# Too few background workers.  The server's own logical replication launcher
# takes the first one.
for my $case (
	[ 0, qr/LOG:  too many background workers/, 0 ],
	[ 1, qr/LOG:  too many background workers/, 0 ],
	[ 2, qr/WARNING:  event_store has no background worker for the database with OID \d+: there are too few/, 1 ])
{
	my ($slots, $line, $launchers) = @$case;

	set('max_worker_processes', $slots);
	log_from_here();
	$node->stop('immediate');
	$node->start;
	$node->wait_for_log($line, $offset);
	is($node->safe_psql('postgres', "SELECT count(*) FROM ($launcher_sql) l"), $launchers, "max_worker_processes = $slots: launchers");
	$listener = listener('late', 'ev');
	$position = append('late', 'ev');
	hears($listener, 'ev', $position, 'the appending transaction notifies');
	is($node->safe_psql('late', q{SELECT worker_pid IS NULL FROM event_store.feeds LIMIT 1}), 't', 'there is no worker');
	$waiter = waiter('late', 'ev', $position);
	got($waiter, append('late', 'ev'), 'who waits gets the events');
	$listener->{psql}->quit;
}
cmp_ok(logged(qr/WARNING:  event_store/), '<=', 3, 'the launcher complains now and then only');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE later');
$listener = listener('copy', 'ev');
hears($listener, 'ev', append('copy', 'ev'), 'the first append in a copy is notified too');
$listener->{psql}->quit;

# No room for more than one event table.
$node->safe_psql('postgres', 'ALTER SYSTEM RESET max_worker_processes');
$node->safe_psql('postgres', "DROP DATABASE $_") for 'later', 'copy';
set('event_store.max_event_tables', 1);
log_from_here();
$node->restart;
comes($node, 'late', 'with max_event_tables = 1 there is a worker');
worker($node, 'late');
cmp_ok(logged(qr/WARNING:  event_store cannot look after all event tables of this server: there are more than 1/), '>', 0, 'which says that it cannot look after all');
$listener = listener('late', 'ev', 'other');
hears($listener, $_, append('late', $_), "table $_ is notified") for 'ev', 'other';
is($node->safe_psql('late', 'SELECT count(notifications) FROM event_store.feeds'), 1, 'one of them by the worker');
for my $table ('ev', 'other')
{
	$waiter = waiter('late', $table, append('late', $table));
	got($waiter, append('late', $table), "who waits for events of table $table gets them");
}
$listener->{psql}->quit;
$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');

# pg_upgrade wants nobody at work.
$node->stop;
{
	local %ENV = $node->_get_env();
	system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o', '-b', 'start');
	is($node->safe_psql('late', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'event_store%'}), 0, 'no launcher in binary upgrade mode');
	append('late', 'ev');
	is(notifications('late', 'ev'), '', 'and no shared state');
	system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, 'stop');
}

log_is_clean($node);
done_testing();
