# Feeds on streaming standbys: how far they go, that nothing is skipped under
# load, and that a consumer goes on when its standby is promoted.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', allows_streaming => 1, no_extension => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
event_store.standby_interval = -1
max_prepared_transactions = 5
max_connections = 40
autovacuum = off
EOT
my $dir = PostgreSQL::Test::Utils::tempdir;

# follow() reads from its checkpoint on, until it has come to the position in the
# table finish.  It says what it has got, and shows its checkpoint as its
# application_name.
$primary->safe_psql('postgres', <<'EOT');
ALTER DATABASE postgres SET synchronous_commit = remote_apply;
CREATE EXTENSION event_store;
SELECT event_store.create_event_table('ev');
SELECT event_store.append('ev', 'order-' || n, 'Placed', to_jsonb(n), correlation_id => 'c' || n % 2) FROM generate_series(1, 5) n;
SELECT event_store.append('ev', 'customer-1', 'Moved', '{}');
SELECT event_store.create_event_table('feed');
SELECT event_store.create_event_table('log');
SELECT event_store.create_event_table('tick');
SELECT event_store.create_event_table('quiet');
CREATE TABLE finish (position bigint);
CREATE PROCEDURE follow(event_table regclass) LANGUAGE plpgsql AS $$
DECLARE
	cp bigint := 0; id uuid; b record; polls bigint := 0;
BEGIN
	LOOP
		SELECT * INTO b FROM event_store.read_batch(event_table, after => cp, after_event_id => id, max_count => 20);
		IF b.events <> '[]' THEN
			RAISE NOTICE 'got %', (SELECT string_agg((e ->> 'position') || '=' || (e ->> 'event_id'), ' ' ORDER BY n)
									 FROM jsonb_array_elements(b.events) WITH ORDINALITY AS x (e, n));
		END IF;
		ASSERT b.checkpoint >= cp, 'the checkpoint falls';
		cp := b.checkpoint;
		id := b.checkpoint_event_id;
		polls := polls + 1;
		PERFORM set_config('application_name', cp::text, false);
		COMMIT;
		EXIT WHEN cp >= (SELECT position FROM finish);
	END LOOP;
	RAISE NOTICE '% polls', polls;
END $$;
EOT

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'event_store.standby_interval = 1ms');
$standby->start;

# A standby can read so far, at last.
sub reaches
{
	my ($node, $table, $mark, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually($node, "SELECT event_store.high_water_mark('$table') = $mark", $name);
	return;
}

sub same
{
	my ($query, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($standby->safe_psql('postgres', $query), $primary->safe_psql('postgres', $query), $name);
	return;
}

# Appends, without waiting for a standby, and returns the position.
sub append
{
	my ($node, $table) = @_;

	return $node->safe_psql('postgres', "SET synchronous_commit = local; SELECT first_position FROM event_store.append('$table', 's-1', 'T', '{}')");
}

# The worker of a primary has looked at all that has changed so far, and what it
# has recorded has come to a standby: by two of its rounds about another table.
sub worker_has_looked
{
	my ($node, $replica) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	reaches($replica, 'tick', append($node, 'tick'), 'the worker has looked') for 1 .. 2;
	return;
}

# A session that listens, and what it hears next.
sub start_listening
{
	my ($node, $table) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_safe("SELECT format('LISTEN %I', event_store.channel('$table')) \\gexec");
	return $session;
}

sub heard
{
	my ($session) = @_;

	for (1 .. 100000)
	{
		return $1 if $session->query_safe('SELECT NULL') =~ /with payload "(\d+)"/;
	}
	return;
}

# A prepared transaction that has appended to a table: the position of its event,
# and the mark that it keeps the table at.
sub hold
{
	my ($table) = @_;

	my $position = $primary->safe_psql('postgres', "BEGIN; SELECT first_position FROM event_store.append('$table', 'held-1', 'Held', '{}'); PREPARE TRANSACTION 'held'");
	return ($position, $primary->safe_psql('postgres', q{SELECT position FROM event_store.mark_holders WHERE prepared_transaction = 'held'}));
}

# A session that waits in wait_for_events(), and tells in the end whether it was
# woken before the time-out.
sub start_waiting
{
	my ($node, $table, $after) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_until(qr/waiting/, <<"EOT");
\\echo waiting
SELECT newest, clock_timestamp() < now() + '55 s' FROM (SELECT event_store.wait_for_events('$table', $after, '60 s') AS newest OFFSET 0) w;
EOT
	eventually($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'Extension' AND query LIKE '%wait_for_events%'}, "a session waits for events of $table");
	return $session;
}

sub finish_waiting
{
	my ($session) = @_;
	my $output = $session->query(q{SELECT 'finished'}) . $session->{stderr};

	$session->quit;
	return $output;
}

# Before the primary records anything
eventually($primary, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_store worker'}, 'the primary has a worker');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'event_store%'}), 0, 'the standby has neither launcher nor worker');
is($primary->safe_psql('postgres', 'SELECT count(*) FROM event_store.feed_marks'), 0, 'nothing is recorded with standby_interval = -1');
for my $feed (q{read_all('ev')}, q{read_category('ev', 'order')}, q{read_batch('ev')}, q{high_water_mark('ev')}, q{wait_for_events('ev')})
{
	refused($standby, "SELECT event_store.$feed", '0A000', 'cannot be read on this standby\nDETAIL:  The primary has not recorded how far\.\nHINT:  .*shared_preload_libraries.*standby_interval',
		"$feed is refused");
}
is($standby->safe_psql('postgres', q{SELECT event_table, mark, checkpoint, worker_pid FROM event_store.feeds WHERE event_table = 'ev'::regclass}), 'ev|||', 'the view feeds has no mark');

# From now on it does, without an append.
$primary->safe_psql('postgres', $_) for q{ALTER SYSTEM SET event_store.standby_interval = '1ms'}, 'SELECT pg_reload_conf()';
reaches($standby, 'ev', 6, 'the mark is recorded as soon as the setting says so');
same("SELECT * FROM event_store.$_", $_) for (
	q{read_all('ev')}, q{read_all('ev', direction => 'backward', max_count => 2)}, q{read_all('ev', 2, before => 5)},
	q{read_all('ev', types => '{Moved}')}, q{read_all('ev', categories => '{order}', correlation_id => 'c1')},
	q{read_category('ev', 'order', after => 1)}, q{read_batch('ev', max_count => 3)}, q{read_batch('ev', types => '{None}')},
	q{read_batch('ev', 3, after_event_id => (SELECT event_id FROM ev WHERE position = 3))}, q{high_water_mark('ev')});
refused($standby, q{SELECT event_store.read_all('ev', 3, after_event_id => gen_random_uuid())}, 'SE009', '', 'after_event_id is checked');
is($standby->safe_psql('postgres', q{SELECT mark, checkpoint, last_position, events_behind FROM event_store.feeds WHERE event_table = 'ev'::regclass}), '6|6|6|0', 'the view feeds');

# tables that are created, renamed and moved while it streams
$primary->safe_psql('postgres', q{SELECT event_store.create_event_table('fresh')});
reaches($standby, 'fresh', 0, 'a table without events has a mark soon');
is($standby->safe_psql('postgres', q{SELECT * FROM event_store.read_batch('fresh')}), '0||[]', 'and an empty feed');
append($primary, 'fresh');
$primary->safe_psql('postgres', 'CREATE SCHEMA elsewhere; ALTER TABLE fresh SET SCHEMA elsewhere; ALTER TABLE elsewhere.fresh RENAME TO "Old"');
reaches($standby, 'elsewhere."Old"', 1, 'its mark rises, under any name');
append($primary, 'elsewhere."Old"');
reaches($standby, 'elsewhere."Old"', 2, 'also after that');

# A REPEATABLE READ transaction on the standby
{
	my $session = $standby->background_psql('postgres');
	is($session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM ev'), 6, 'a REPEATABLE READ transaction');
	append($primary, 'ev');
	reaches($standby, 'ev', 7, 'an append reaches the standby');
	is($session->query_safe(q{SELECT (SELECT count(*) FROM ev), (SELECT count(*) FROM event_store.read_all('ev')), checkpoint FROM event_store.read_batch('ev')}), '6|7|7', 'it sees a fresh feed');
	$session->query_safe('COMMIT');
	$session->quit;
}

# What is in flight on the primary holds the mark on the standby.
{
	my $session = $primary->background_psql('postgres');
	my $held = $session->query_safe(q{BEGIN; SELECT first_position FROM event_store.append('ev', 'held-1', 'Held', '{}')});
	my $later = append($primary, 'ev');
	worker_has_looked($primary, $standby);
	is($standby->safe_psql('postgres', q{SELECT (SELECT max(position) FROM ev), checkpoint FROM event_store.read_batch('ev', 6)}), "$later|7", 'an event behind one in flight is there, but not in the feed');
	$session->query_safe('COMMIT');
	$session->quit;
	reaches($standby, 'ev', $later, 'the mark rises when it has ended');
	is($standby->safe_psql('postgres', q{SELECT string_agg(position::text, ' ') FROM event_store.read_all('ev', 7)}), "$held $later", 'and the feed has both');
}

# wait_for_events()
{
	my $newest = $standby->safe_psql('postgres', q{SELECT event_store.wait_for_events('ev', 7)});
	is($standby->safe_psql('postgres', qq{SELECT event_store.wait_for_events('ev', $newest, '20 ms')}), $newest, 'wait_for_events() ends at the time-out');

	my $session = start_waiting($standby, 'ev', $newest);
	my $position = append($primary, 'ev');
	is(finish_waiting($session), "$position|t\nfinished", 'it is woken by an append');

	$session = start_waiting($standby, 'ev', $position);
	$standby->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'Extension' AND query LIKE '%wait_for_events%'});
	like(finish_waiting($session), qr/^finished\n?.*canceling statement due to user request/s, 'it can be cancelled');
}

# A consumer on the standby while writers of all kinds are at work on the
# primary, and a prepared transaction holds the mark for some time.
sub start_following
{
	my ($table) = @_;
	my $file = "$dir/$table.got";

	return { file => $file,
		run => IPC::Run::start([ 'psql', '-Xq', '-v', 'VERBOSITY=terse', '-d', $standby->connstr('postgres'), '-c', "CALL follow('$table')" ],
			'2>', $file, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default)) };
}

my $its_checkpoint = q{SELECT application_name::bigint FROM pg_stat_activity WHERE query LIKE 'CALL follow%'};

# It has to end with the table's last event; then its events are compared with
# those that the table has, on a server.
sub finish_following
{
	my ($reader, $node, $table) = @_;

	$node->safe_psql('postgres', "INSERT INTO finish SELECT max(position) FROM $table");
	$reader->{run}->finish;
	my $output = slurp_file($reader->{file});
	like($output, qr/ \d+ polls$/, 'the consumer has come to the end') or diag(substr($output, -500));
	my @got = map { split / / } $output =~ /got (.*)/g;
	my @there = split /\n/, $node->safe_psql('postgres', "SELECT position || '=' || event_id FROM $table ORDER BY position");
	my %got = map { $_ => 1 } @got;
	my %there = map { $_ => 1 } @there;
	note(scalar(@there), ' events, ', $output =~ / (\d+ polls)$/);
	is(join(' ', grep { !$got{$_} } @there), '', 'it has missed nothing');
	is(join(' ', grep { !$there{$_} } @got), '', 'it has got nothing that is not there');
	is(scalar(@got), scalar(@there), 'nothing twice');
	ok("@got" eq "@there", 'and all in the order of the positions');
	$node->safe_psql('postgres', 'TRUNCATE finish');
	return;
}

sub start_writing
{
	my ($node, $table) = @_;
	my $stream = q{'w-' || :client_id || '-' || :s};
	my %scripts = (
		'plain@6' => "SELECT event_store.append('$table', $stream, 'Plain', '{}');\n",
		'slow@2' => "BEGIN;\nSELECT event_store.append('$table', $stream, 'Slow', '{}');\n\\sleep 15 ms\nSELECT event_store.append('$table', $stream, 'Slow', '{}');\nCOMMIT;\n",
		'lost@1' => "BEGIN;\nSELECT event_store.append('$table', $stream, 'Lost', '{}');\n\\sleep 5 ms\nROLLBACK;\n",
		'half@1' => "BEGIN;\nSAVEPOINT a;\nSELECT event_store.append('$table', $stream, 'Lost', '{}');\nROLLBACK TO a;\n\\sleep 5 ms\nINSERT INTO $table (stream, type, data) SELECT $stream, 'Inserted', '{}' FROM generate_series(1, 3);\nCOMMIT;\n");
	my %writers = (out => '', err => '');
	my @files;

	while (my ($script, $text) = each %scripts)
	{
		my ($name, $weight) = split /@/, $script;
		my $file = "$dir/$table-$name-" . $node->name;
		append_to_file($file, "\\set s random(1, 9)\n$text") unless -e $file;
		push @files, '-f', "$file\@$weight";
	}
	$writers{run} = IPC::Run::start([ 'pgbench', '-n', '-c', 8, '-j', 1, '-T', 600, @files, $node->connstr('postgres') ],
		'>', \$writers{out}, '2>', \$writers{err});
	return \%writers;
}

sub stop_writing
{
	my ($writers) = @_;

	$writers->{run}->signal('INT');
	$writers->{run}->finish;
	unlike($writers->{err}, qr/ERROR|aborted/, 'writers without an error');
	return;
}

{
	my $waiting = start_waiting($standby, 'quiet', 0);
	my $reader = start_following('feed');
	my $writers = start_writing($primary, 'feed');
	eventually($standby, "SELECT ($its_checkpoint) > 200", 'a consumer on the standby reads while writers are at work');
	my ($held, $mark) = hold('feed');
	eventually($standby, "SELECT count(*) > 300 FROM feed WHERE position > $held", 'much is behind a prepared transaction');
	eventually($standby, "SELECT ($its_checkpoint) = max(position) FROM feed WHERE position <= $mark", 'the consumer gets up to it');
	worker_has_looked($primary, $standby);
	cmp_ok($standby->safe_psql('postgres', $its_checkpoint), '<=', $mark, 'and no further');
	$primary->safe_psql('postgres', q{COMMIT PREPARED 'held'});
	eventually($standby, "SELECT ($its_checkpoint) > $held + 500", 'until that is committed');
	stop_writing($writers);
	finish_following($reader, $primary, 'feed');
	reaches($standby, 'feed', $primary->safe_psql('postgres', 'SELECT max(position) FROM feed'), 'the last record is the newest event');

	# So many records leave nothing to clean up that the standby could still need.
	append($primary, 'quiet');
	like(finish_waiting($waiting), qr/^\d\|[tf]\nfinished$/, 'a session that has waited all the time was not disturbed');
	is($standby->safe_psql('postgres', q{SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname = 'postgres'}), 0, 'nor was anybody else');
}

# The worker waits for no synchronous standby.
{
	$primary->safe_psql('postgres', $_) for q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'}, 'SELECT pg_reload_conf()';
	my $listener = start_listening($primary, 'ev');
	for my $round (1 .. 2)
	{
		my $position = append($primary, 'ev');
		is(heard($listener), $position, 'listeners are notified while the synchronous standby is down');
		reaches($standby, 'ev', $position, 'and a mark is recorded');
	}
	$listener->quit;
	$primary->safe_psql('postgres', q{SET synchronous_commit = local; SELECT event_store.create_event_table('fresh')});
	reaches($standby, 'fresh', 0, 'so is the first mark of a table');

	# An append that waits for its standby is in no feed before.
	my $newest = $primary->safe_psql('postgres', q{SELECT checkpoint FROM event_store.read_batch('ev')});
	my $session = $primary->background_psql('postgres');
	$session->query_until(qr/appending/, "\\echo appending\nSELECT first_position FROM event_store.append('ev', 'sync-1', 'T', '{}');\n");
	eventually($primary, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'}, 'an append waits for the synchronous standby');
	append($primary, 'ev');
	worker_has_looked($primary, $standby);
	is($standby->safe_psql('postgres', q{SELECT checkpoint FROM event_store.read_batch('ev')}), $newest, 'neither it nor a later one is in the feed on the standby');
	$primary->safe_psql('postgres', $_) for q{ALTER SYSTEM RESET synchronous_standby_names}, 'SELECT pg_reload_conf()';
	like($session->query_safe('SELECT 1'), qr/^\d+\n1$/, 'when it need not wait any more it ends');
	$session->quit;
	reaches($standby, 'ev', $primary->safe_psql('postgres', 'SELECT max(position) FROM ev'), 'and both are');
}

# A standby of the standby
$standby->backup('base');
my $cascade = PostgreSQL::Test::Cluster->new('cascade');
$cascade->init_from_backup($standby, 'base', has_streaming => 1);
$cascade->start;
reaches($cascade, 'ev', append($primary, 'ev'), 'a standby of the standby gets the marks');

# Promotion, while writers, a consumer and a session that waits are at work, and
# with a prepared transaction in flight.
my $reader = start_following('log');
my $writers = start_writing($primary, 'log');
eventually($standby, "SELECT ($its_checkpoint) > 200", 'a consumer reads on the standby');
my ($held, $mark) = hold('log');
eventually($standby, "SELECT count(*) > 100 FROM log WHERE position > $held", 'a prepared transaction is in flight');
my $newest = $standby->safe_psql('postgres', q{SELECT checkpoint FROM event_store.read_batch('ev')});
my $waiting = start_waiting($standby, 'ev', $newest);
$primary->stop('immediate');
$standby->promote;
$writers->{run}->finish;

eventually($standby, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type LIKE 'event_store%'}, 'the new primary has a launcher and a worker');
is($standby->safe_psql('postgres', q{SELECT event_table, prepared_transaction FROM event_store.mark_holders}), 'log|held', 'the prepared transaction is still in flight');
my $position = append($standby, 'ev');
is(finish_waiting($waiting), "$position|t\nfinished", 'an append on the new primary wakes a session that has waited since before the promotion');

my $behind = $standby->safe_psql('postgres', 'SELECT max(position) FROM log');
$writers = start_writing($standby, 'log');
eventually($standby, "SELECT count(*) > 300 FROM log WHERE position > $behind", 'writers are at work on it');
worker_has_looked($standby, $cascade);
eventually($standby, "SELECT ($its_checkpoint) = max(position) FROM log WHERE position <= $mark", 'the consumer gets up to the prepared transaction');
is($standby->safe_psql('postgres', "SELECT mark <= $mark FROM event_store.feed_marks WHERE event_table = 'log'::regclass"), 't', 'which the record does not pass either');
my $listener = start_listening($standby, 'log');
$standby->safe_psql('postgres', q{COMMIT PREPARED 'held'});
cmp_ok(heard($listener), '>', $behind, 'listeners are notified when it has been committed');
$listener->quit;
eventually($standby, "SELECT ($its_checkpoint) > $behind", 'and the consumer goes on');
stop_writing($writers);
finish_following($reader, $standby, 'log');
reaches($cascade, 'log', $standby->safe_psql('postgres', 'SELECT max(position) FROM log'), 'the other standby gets the marks of the new primary');

# Shutdown
$waiting = start_waiting($cascade, 'log', 1000000);
ok($cascade->stop('fast'), 'a standby on which a session waits is shut down');
$waiting->{run}->finish;
like($waiting->{stderr}, qr/terminating connection due to administrator command/, 'the session is told');

log_is_clean($primary, $standby, $cascade);
$standby->stop;
done_testing();
