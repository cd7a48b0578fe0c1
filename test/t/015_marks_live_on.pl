# The records of how far standbys can read: written only when there is something
# to write, gone with their table, and right after everything that happens to
# databases and clusters.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = <<'EOT';
shared_preload_libraries = 'event_store'
event_store.standby_interval = 1ms
event_store.max_workers = 8
max_worker_processes = 16
max_connections = 20
autovacuum = off
checkpoint_timeout = 1h
wal_keep_size = 1GB
EOT
my $node = new_server('marks', allows_streaming => 'logical', conf => $conf);
my $dir = PostgreSQL::Test::Utils::tempdir;

# By name of the event table; empty if there is none.
sub mark
{
	my ($table) = @_;

	return "(SELECT mark FROM event_store.feed_marks WHERE event_table = '$table'::regclass)";
}

sub append
{
	my ($where, $table, $db) = @_;

	return $where->safe_psql($db // 'postgres', "SELECT first_position FROM event_store.append('$table', 's-1', 'T', '{}')");
}

sub recorded
{
	my ($where, $table, $position, $name, $db) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($where->poll_query_until($db // 'postgres', 'SELECT ' . mark($table) . " = $position"), $name);
	return;
}

# The worker has looked at all that has changed so far: by two of its rounds
# about another table.
sub worker_has_looked
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	recorded($node, 'tick', append($node, 'tick'), 'the worker has looked') for 1 .. 2;
	return;
}

$node->safe_psql('postgres', q{SELECT event_store.create_event_table(t) FROM unnest('{ev,tick,log}'::text[]) t});
append($node, 'log') for 1 .. 5;
$node->backup('base');

# Nothing is written when nothing has moved.
{
	my $row = q{SELECT xmin, ctid, * FROM event_store.feed_marks WHERE event_table = 'ev'::regclass};

	recorded($node, 'ev', append($node, 'ev'), 'an append is recorded');
	my $before = $node->safe_psql('postgres', $row);
	worker_has_looked();
	is($node->safe_psql('postgres', $row), $before, 'appends to another table do not touch the record');
	$node->safe_psql('postgres', q{BEGIN; SELECT event_store.append('ev', 's-1', 'Lost', '{}'); ROLLBACK});
	worker_has_looked();
	is($node->safe_psql('postgres', $row), $before, 'nor does an append that is rolled back');
	$node->restart;
	worker_has_looked();
	is($node->safe_psql('postgres', $row), $before, 'nor does a restart');

	# Others may write something in the meantime; but not always.
	my $moved;
	for (1 .. 10)
	{
		$moved = $node->safe_psql('postgres', <<"EOT");
SELECT pg_current_wal_insert_lsn() AS before \\gset
SELECT event_store.wait_for_events('ev', 1000000, '300 ms') \\g /dev/null
SELECT pg_current_wal_insert_lsn() - :'before';
EOT
		last if $moved == 0;
	}
	is($moved, 0, 'an idle server writes no WAL, also while somebody waits');
}

# Records only rise.
$node->safe_psql('postgres', q{UPDATE event_store.feed_marks SET mark = 1000 WHERE event_table = 'ev'::regclass});
append($node, 'ev');
worker_has_looked();
is($node->safe_psql('postgres', 'SELECT ' . mark('ev')), 1000, 'a record is not replaced by a lower one');
$node->safe_psql('postgres', q{UPDATE event_store.feed_marks SET mark = 0 WHERE event_table = 'ev'::regclass});
recorded($node, 'ev', append($node, 'ev'), 'but by a higher one');

# A row goes with its table, whoever drops it and however; also in a transaction
# whose snapshot is older than the row.
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN');
for my $drop (
	[ 'DROP TABLE own.t' ],
	[ q{SELECT event_store.drop_event_table('own.t')} ],
	[ 'DROP SCHEMA own CASCADE' ],
	[ 'DROP OWNED BY owner' ],
	[ 'DROP TABLE own.t', 'REPEATABLE READ' ],
	[ 'DROP TABLE own.t', 'SERIALIZABLE' ])
{
	my ($command, $isolation) = ($drop->[0], $drop->[1] // 'READ COMMITTED');
	my @as = (extra_params => [ '-U', 'owner' ]);

	$node->safe_psql('postgres', 'GRANT CREATE ON DATABASE postgres TO owner');
	$node->safe_psql('postgres', q{CREATE SCHEMA IF NOT EXISTS own; SELECT event_store.create_event_table('own.t')}, @as);
	my $rows = $node->safe_psql('postgres', q{SELECT 'SELECT count(*) FROM event_store.feed_marks WHERE event_table = ' || 'own.t'::regclass::oid});
	my $session = $node->background_psql('postgres', @as);
	$session->query_safe("SET client_min_messages = error; BEGIN ISOLATION LEVEL $isolation; SELECT 1");
	recorded($node, 'own.t', append($node, 'own.t'), "$isolation: recorded after the transaction has begun");
	$session->query_safe("SAVEPOINT s; $command; ROLLBACK TO s");
	recorded($node, 'own.t', append($node, 'own.t'), 'and after a drop that is rolled back');
	$session->query_safe("$command; COMMIT");
	$session->quit;
	is($node->safe_psql('postgres', $rows), 0, "$command: the row is gone");
}

# Clients that create, fill and drop tables, while another one appends, and
# feed_marks is put in order.
{
	my ($out, $err) = ('', '');
	my @clients;

	append_to_file("$dir/drop.sql", <<'EOT');
SELECT event_store.create_event_table('t:client_id');
SELECT event_store.append('t:client_id', 's-1', 'T', '{}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM event_store.feed_marks;
\sleep 10 ms
DROP TABLE t:client_id;
COMMIT;
EOT
	append_to_file("$dir/append.sql", "SELECT event_store.append('log', 's-1', 'T', '{}');\n\\sleep 1 ms\n");
	push @clients, IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-t', 40, '-f', "$dir/drop.sql", $node->connstr('postgres') ], '>', \$out, '2>', \$err);
	push @clients, IPC::Run::start([ 'pgbench', '-n', '-c', 1, '-T', 600, '-f', "$dir/append.sql", $node->connstr('postgres') ], '>', \$out, '2>', \$err);
	$node->safe_psql('postgres', $_) for 'VACUUM FULL event_store.feed_marks', 'REINDEX TABLE CONCURRENTLY event_store.feed_marks',
	  'CLUSTER event_store.feed_marks USING feed_marks_pkey', 'VACUUM FREEZE event_store.feed_marks';
	$clients[0]->finish;
	$clients[1]->signal('INT');
	$clients[1]->finish;
	unlike($err, qr/ERROR|aborted/, 'tables come and go while marks are written');
	recorded($node, 'log', append($node, 'log'), 'marks are still written');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM event_store.feed_marks m LEFT JOIN pg_class c ON c.oid = m.event_table WHERE c IS NULL'), 0, 'no row is left behind');
}

# While somebody has feed_marks for himself, the worker goes on without.
{
	my ($listener, $session) = map { $node->background_psql('postgres') } 1 .. 2;
	$listener->query_safe(q{SELECT format('LISTEN %I', event_store.channel('ev')) \gexec});
	$session->query_safe('BEGIN; LOCK TABLE event_store.feed_marks');
	my ($position, $heard);
	for my $event (1 .. 2)
	{
		$position = append($node, 'ev');
		for (1 .. 100000)
		{
			($heard) = $listener->query_safe('SELECT NULL') =~ /with payload "(\d+)"/ and last;
		}
		is($heard, $position, 'with feed_marks locked the worker notifies');
	}
	$session->query_safe('COMMIT');
	$_->quit for $listener, $session;
	recorded($node, 'ev', $position, 'and records afterwards');
}

# A dump does not have them, and the restored database makes its own.
{
	command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/dump.sql" ], 'pg_dump');
	unlike(slurp_file("$dir/dump.sql"), qr/feed_marks/, 'the dump knows nothing of feed_marks');
	$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
	command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', "$dir/dump.sql" ], 'restore');
	my $newest = $node->safe_psql('postgres', q{SELECT * FROM event_store.read_all('ev', direction => 'backward', max_count => 1)});
	is($node->safe_psql('restored', q{SELECT * FROM event_store.read_all('ev', direction => 'backward', max_count => 1)}), $newest, 'the feed is the same');
	recorded($node, 'ev', $newest =~ s/\|.*//sr, 'the mark is recorded without an append', 'restored');
	recorded($node, 'ev', append($node, 'ev', 'restored'), 'and rises', 'restored');
	$node->safe_psql('postgres', 'DROP DATABASE restored');
}

# A copy of the database has them, and goes on by itself.
{
	my $before = $node->safe_psql('postgres', 'SELECT ' . mark('ev'));

	$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
	is($node->safe_psql('copy', 'SELECT ' . mark('ev')), $before, 'a copy of the database has the marks');
	recorded($node, 'ev', append($node, 'ev', 'copy'), 'they rise there', 'copy');
	worker_has_looked();
	is($node->safe_psql('postgres', 'SELECT ' . mark('ev')), $before, 'and not here');
}

# Logical replication of all tables brings nobody the marks of another server, nor its projections.
{
	$node->safe_psql('postgres', q{SELECT event_store.create_projection('before', 'ev', 'SELECT FROM events', mode => 'manual')});
	$node->safe_psql('postgres', q{CREATE PUBLICATION pub FOR ALL TABLES; SELECT pg_create_logical_replication_slot('slot', 'pgoutput')});
	$node->safe_psql('template1', 'CREATE DATABASE subscriber');
	$node->safe_psql('subscriber', q{CREATE EXTENSION event_store; SELECT event_store.create_event_table(t) FROM unnest('{ev,tick,log,own}'::text[]) t});
	recorded($node, 'own', append($node, 'own', 'subscriber'), 'a database with marks', 'subscriber');
	$node->safe_psql('subscriber', 'CREATE SUBSCRIPTION sub CONNECTION $$' . $node->connstr('postgres') . q{$$ PUBLICATION pub WITH (create_slot = false, slot_name = 'slot')});
	$node->wait_for_subscription_sync($node, 'sub', 'subscriber');
	$node->safe_psql('postgres', q{SELECT event_store.create_event_table('only_here')});
	recorded($node, 'only_here', 0, 'a table that the subscriber has not');
	recorded($node, 'ev', append($node, 'ev'), 'and an append');
	$node->safe_psql('postgres', q{
		SELECT event_store.create_projection('after', 'ev', 'SELECT FROM events', mode => 'manual');
		SELECT event_store.run_projection(name) FROM event_store.projections;
	});
	$node->wait_for_catchup('sub');
	is($node->safe_psql('subscriber', 'SELECT count(*) FROM ev'), $node->safe_psql('postgres', 'SELECT count(*) FROM ev'), 'a subscription to all tables of another database gets the events');
	is($node->safe_psql('subscriber', 'SELECT max(mark) FROM event_store.feed_marks'), 1, 'and not the marks');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM event_store.projection_checkpoints WHERE events > 0'), 2, 'there are projections');
	is($node->safe_psql('subscriber', "SELECT count(*) FROM event_store.$_"), 0, "nothing of them arrives: $_")
	  for qw(registered_projections projection_checkpoints);
	is($node->safe_psql('subscriber', q{SELECT string_agg(DISTINCT srsubstate::text, '') FROM pg_subscription_rel}), 'r', 'and all of it has been copied');
	$node->safe_psql('postgres', 'SELECT event_store.drop_projection(name) FROM event_store.projections');
	$node->safe_psql('subscriber', 'DROP SUBSCRIPTION sub');
	$node->safe_psql('postgres', 'DROP TABLE only_here; DROP PUBLICATION pub');
}

# Point-in-time recovery: the marks are those of that time.
{
	my $checkpoint = q{SELECT format('after => %s, after_event_id => %L', checkpoint, checkpoint_event_id) FROM event_store.read_batch('log', max_count => 100000)};
	my $mark = append($node, 'log');
	recorded($node, 'log', $mark, 'before the restore point');
	my $then = $node->safe_psql('postgres', $checkpoint);
	$node->safe_psql('postgres', q{SELECT pg_create_restore_point('then')});
	recorded($node, 'log', append($node, 'log'), 'and after it');
	my $ahead = $node->safe_psql('postgres', $checkpoint);

	my $restored = PostgreSQL::Test::Cluster->new('restored');
	$restored->init_from_backup($node, 'base');
	$restored->set_recovery_mode;
	$restored->append_conf('postgresql.conf', "restore_command = 'cp \"" . $node->data_dir . "/pg_wal/%f\" \"%p\"'\nrecovery_target_name = then\nrecovery_target_action = pause");
	$restored->start;
	eventually($restored, q{SELECT pg_get_wal_replay_pause_state() = 'paused'}, 'a backup is restored to that point');
	is($restored->safe_psql('postgres', q{SELECT event_store.high_water_mark('log')}), $mark, 'the mark is that of the time');
	is($restored->safe_psql('postgres', "SELECT count(*) FROM event_store.read_all('log', $then)"), 0, 'a checkpoint of the time is right');
	refused($restored, "SELECT event_store.read_all('log', $ahead)", 'SE009', '', 'one ahead of it is noticed');
	$restored->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	eventually($restored, 'SELECT NOT pg_is_in_recovery()', 'the server goes on from there');
	my $position = append($restored, 'log');
	is($restored->safe_psql('postgres', "SELECT string_agg(position::text, ' ') FROM event_store.read_all('log', $then)"), $position, 'so does the feed');
	recorded($restored, 'log', $position, 'the marks');
	refused($restored, "SELECT event_store.read_all('log', $ahead)", 'SE009', '', 'but not a checkpoint ahead of it');
	log_is_clean($restored);
	$restored->stop;
}

# pg_upgrade with the library preloaded: nobody is at work meanwhile, and the
# marks are taken over.
{
	my $before = $node->safe_psql('postgres', 'SELECT ' . mark('log'));
	my $newest = $node->safe_psql('postgres', q{SELECT format('after => %s, after_event_id => %L', checkpoint, checkpoint_event_id) FROM event_store.read_batch('log', max_count => 100000)});
	my $new = PostgreSQL::Test::Cluster->new('upgraded');
	my $started = qr/registering background worker "event_store launcher"/;

	$new->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ], allows_streaming => 1);
	$_->append_conf('postgresql.conf', "$conf\nlog_min_messages = debug1") for $node, $new;
	$node->stop;
	chomp(my $bin = `pg_config --bindir`);
	chdir $dir;    # pg_upgrade leaves files in the current directory
	command_ok([ 'pg_upgrade', '--no-sync', '--retain', '-b', $bin, '-d', $node->data_dir, '-D', $new->data_dir, '-s', $new->host,
			'-p', $node->port, '-P', $new->port ], 'pg_upgrade');
	my $log = join '', map { slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/*server*');
	like($log, qr/registering background worker "logical replication launcher"/, 'the log tells who is at work');
	unlike($log, $started, 'during pg_upgrade nobody of ours');
	$new->start;
	like(slurp_file($new->logfile), $started, 'but afterwards');
	is($new->safe_psql('postgres', 'SELECT ' . mark('log')), $before, 'the mark is what it was');
	my $position = append($new, 'log');
	is($new->safe_psql('postgres', "SELECT position FROM event_store.read_all('log', $newest)"), $position, 'the feed goes on');
	recorded($new, 'log', $position, 'and so do the marks');
	log_is_clean($new);
	$new->stop;
}

# The workers have met no error in all that.
is(join("\n", grep { /\] [0-9A-Z]{5} (?:ERROR|WARNING):/ } split /\n/, slurp_file($node->logfile)), '', 'no background process has complained');
log_is_clean($node);
done_testing();
