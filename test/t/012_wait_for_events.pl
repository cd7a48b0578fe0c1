# wait_for_events(): who is woken, by what, and what ends a wait; with the worker,
# and in all the ways to be without one.
use strict;
use warnings;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('wait_for_events', conf => <<'EOT');
shared_preload_libraries = 'event_store'
max_prepared_transactions = 5
EOT
$node->safe_psql('postgres', <<'EOT');
CREATE ROLE reader LOGIN;
CREATE TABLE log (result text);
CREATE FUNCTION in_subtransactions(event_table regclass, after bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text := '';
BEGIN
    BEGIN
        PERFORM event_store.wait_for_events(event_table, after, '-1 s');
    EXCEPTION WHEN OTHERS THEN
        result := SQLSTATE;
    END;
    BEGIN
        PERFORM event_store.wait_for_events(event_table, after, '60 s');
    EXCEPTION WHEN query_canceled THEN
        result := result || ' ' || SQLSTATE;
    END;
    result := result || ' ' || event_store.wait_for_events(event_table, after, '60 s');
    RETURN result;
END $$;
EOT

# A wait that nobody ends fails, since it lasts longer than its statement may.
my $patience = '45 s';
my $for_long = q{'60 s'};

# Somebody who runs a command, or several, and waits.
sub start_waiter
{
	my ($sql, @params) = @_;
	my $waiter = { out => '', err => '', started => time };

	$waiter->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres'), @params, map { ('-c', $_) } "SET statement_timeout = '$patience'", ref $sql ? @$sql : $sql ],
		'>', \$waiter->{out}, '2>', \$waiter->{err}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $waiter;
}

sub wait_sql
{
	my ($table, $after, $timeout) = @_;
	return "SELECT event_store.wait_for_events('$table', $after, " . ($timeout // $for_long) . ')';
}

my $sleepers = q{FROM pg_stat_activity WHERE query ~ 'wait_for_events|in_subtransactions' AND pid <> pg_backend_pid() AND state = 'active' AND wait_event = 'Extension'};

# Waits until so many are asleep.
sub asleep
{
	my ($count) = @_;

	$node->poll_query_until('postgres', "SELECT count(*) = $count $sleepers") or die "there are not $count who wait";
	return;
}

# What it has returned, or the SQLSTATE.
sub result
{
	my ($waiter) = @_;

	$waiter->{run}->finish;
	return $1 if $waiter->{err} =~ /(?:ERROR|FATAL):  (\w{5})/;
	return $waiter->{err} . $waiter->{out} =~ s/\s+$//r;
}

sub append
{
	my ($table, @params) = @_;
	return $node->safe_psql('postgres', "SELECT last_position FROM event_store.append('$table', 's-1', 'T', '{}')", @params);
}

# A transaction that has appended and goes on.
sub slow_writer
{
	my ($table) = @_;
	my $slow = $node->background_psql('postgres', on_error_stop => 0);

	$slow->query_safe("BEGIN; SELECT event_store.append('$table', 'slow-' || pg_backend_pid(), 'T', '{}')");
	return $slow;
}

# What holds in whatever way events are waited for: who is woken by what.
sub wakes
{
	my ($how) = @_;
	my ($waiter, $slow, $end);

	$node->safe_psql('postgres', q{SELECT event_store.create_event_table('ev'); SELECT event_store.create_event_table('other'); GRANT SELECT ON ev TO reader});

	# What does not wait.
	is($node->safe_psql('postgres', wait_sql('ev', 0, q{'0'})), 0, "$how: nothing there, no time: 0");
	is(append('ev'), 1, "$how: an append");
	is(result(start_waiter(wait_sql('ev', 0))), 1, "$how: what is there is returned at once");
	is(result(start_waiter(wait_sql('ev', 'NULL'))), 1, "$how: also after NULL");
	is($node->safe_psql('postgres', q{SELECT clock_timestamp() AS started \gset
		SELECT event_store.wait_for_events('ev', 1, '200 ms'), clock_timestamp() - :'started' >= '200 ms'}), '1|t', "$how: at the time-out the checkpoint, which is not above after");
	is($node->safe_psql('postgres', wait_sql('ev', 1000, q{'10 ms'})), 1, "$how: the same where after is above the end");
	is(result(start_waiter("BEGIN; SELECT event_store.append('ev', 'own-1', 'T', '{}'); " . wait_sql('ev', 1))), '25001', "$how: behind an own append that is not committed: refused");
	is(result(start_waiter("SELECT event_store.append('ev', 'own-1', 'T', '{}'), event_store.wait_for_events('ev', 1, $for_long)")), '25001', "$how: also within one statement");
	is(result(start_waiter("BEGIN; SELECT 1 FROM event_store.append('ev', 'own-1', 'T', '{}'); " . wait_sql('ev', 0))) =~ s/.*\n//sr, 1, "$how: but not if there is something already");

	# What wakes.
	$waiter = start_waiter(wait_sql('ev', 1));
	asleep(1);
	$end = append('ev');
	is(result($waiter), $end, "$how: an append wakes");

	for my $command ('COMMIT', 'ROLLBACK')
	{
		$waiter = start_waiter(wait_sql('ev', $end));
		asleep(1);
		$slow = slow_writer('ev');
		my $above = append('ev');
		is($node->safe_psql('postgres', wait_sql('ev', $end, q{'300 ms'})), $end, "$how: not one above an unfinished one");
		asleep(1);
		$slow->query_safe($command);
		$slow->quit;
		is(result($waiter), $above, "$how: that one's $command does");
		$end = $above;
	}
	for my $command ('COMMIT', 'ROLLBACK')
	{
		$node->safe_psql('postgres', q{BEGIN; SELECT event_store.append('ev', 'p-1', 'T', '{}'); PREPARE TRANSACTION 'p'});
		$waiter = start_waiter(wait_sql('ev', $end));
		my $above = append('ev');
		asleep(1);
		is($node->safe_psql('postgres', q{SELECT held_by, held_by_prepared, held_since < now(), checkpoint, last_position, events_behind, seconds_behind >= 0 FROM event_store.feeds WHERE event_table = 'ev'::regclass}),
			"|p|t|$end|$above|" . ($above - $end) . '|t', "$how: the view of feeds names the prepared transaction that holds it back") if $command eq 'COMMIT';
		$node->safe_psql('postgres', "$command PREPARED 'p'");
		is(result($waiter), $above, "$how: $command PREPARED wakes");
		$end = $above;
	}

	# Tables that go.
	$waiter = start_waiter(wait_sql('ev', $end));
	my $other = start_waiter(wait_sql('other', 0));
	asleep(2);
	$node->safe_psql('postgres', q{DROP TABLE ev});
	is(result($waiter), '42P01', "$how: the table is dropped");
	asleep(1);
	$node->safe_psql('postgres', q{BEGIN; DROP TABLE other; SELECT event_store.create_event_table('other'); COMMIT});
	append('other');
	is(result($other), '42P01', "$how: it is dropped, and there is another one of its name");
	is(result(start_waiter(wait_sql('other', 0))), 1, "$how: which can be waited for");
	$node->safe_psql('postgres', q{DROP TABLE other});
	return;
}

# In what transactions one can wait, and what else can happen to who does.
sub circumstances
{
	my ($how) = @_;
	my ($waiter, $end);

	$node->safe_psql('postgres', q{SELECT event_store.create_event_table('ev'); GRANT SELECT ON ev TO reader});
	$end = append('ev');

	$waiter = start_waiter([ 'BEGIN', wait_sql('ev', $end), wait_sql('ev', $end + 1), 'COMMIT' ]);
	asleep(1);
	append('ev');
	$node->poll_query_until('postgres', "SELECT count(*) = 1 $sleepers AND query LIKE '% " . ($end + 1) . ",%'");
	append('ev');
	is(result($waiter), ($end + 1) . "\n" . ($end + 2), "$how: two waits in one transaction");
	$end += 2;

	$waiter = start_waiter("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM log; " . wait_sql('ev', $end));
	asleep(1);
	append('ev');
	is(result($waiter), "0\n" . ++$end, "$how: in REPEATABLE READ too, of events that its snapshot does not see");

	$waiter = start_waiter("SELECT in_subtransactions('ev', $end)");
	asleep(1);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) $sleepers");
	append('ev');
	is(result($waiter), '22023 57014 ' . ++$end, "$how: in a function, after waits in subtransactions that have failed");

	# What ends a wait.
	$waiter = start_waiter(wait_sql('ev', $end));
	asleep(1);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) $sleepers");
	is(result($waiter), '57014', "$how: pg_cancel_backend");
	cmp_ok(time - $waiter->{started}, '<', 30, 'at once');
	$waiter = start_waiter("SET statement_timeout = '100 ms'; " . wait_sql('ev', $end));
	is(result($waiter), '57014', "$how: statement_timeout");
	cmp_ok(time - $waiter->{started}, '<', 30, 'at once');
	$waiter = start_waiter(wait_sql('ev', $end));
	asleep(1);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $sleepers");
	is(result($waiter), '57P01', "$how: pg_terminate_backend");
	cmp_ok(time - $waiter->{started}, '<', 30, 'at once');

	# Row-level security: another one, who sees everything, shows that there was something to see.
	$node->safe_psql('postgres', q{CREATE POLICY p ON ev FOR SELECT USING (stream NOT LIKE 'hidden-%'); ALTER TABLE ev ENABLE ROW LEVEL SECURITY});
	$waiter = start_waiter(wait_sql('ev', $end), '-U', 'reader');
	my $all_seeing = start_waiter(wait_sql('ev', $end));
	asleep(2);
	$node->safe_psql('postgres', q{SELECT event_store.append('ev', 'hidden-1', 'T', '{}')});
	is(result($all_seeing), $end + 1, "$how: an event that policies hide wakes those who may see it");
	is($node->safe_psql('postgres', wait_sql('ev', $end, q{'100 ms'}), extra_params => [ '-U', 'reader' ]), $end, "$how: is not returned to others");
	asleep(1);
	append('ev');
	$end += 2;
	is(result($waiter), $end, "$how: who is woken by the next one");
	$node->safe_psql('postgres', 'ALTER TABLE ev DISABLE ROW LEVEL SECURITY; DROP POLICY p ON ev');

	# Locks.
	$waiter = start_waiter("BEGIN; SELECT count(*) FROM log; " . wait_sql('ev', $end));
	asleep(1);
	is(result(start_waiter(q{SET lock_timeout = '20 s'; ALTER TABLE ev ADD COLUMN IF NOT EXISTS note text})), '', "$how: who waits has no lock on the table");
	asleep(1);
	append('ev');
	is(result($waiter), "0\n" . ++$end, "$how: and goes on after an ALTER TABLE");
	$node->safe_psql('postgres', 'DROP TABLE ev');
	return;
}

# Twenty who wait, on one table or on several.
sub crowd
{
	my ($how) = @_;
	my @tables = map { "crowd$_" } 1 .. 4;

	$node->safe_psql('postgres', join ';', map { "SELECT event_store.create_event_table('$_')" } @tables);
	my @waiters = map { start_waiter(wait_sql('crowd1', 0)) } 1 .. 20;
	asleep(20);
	append('crowd1');
	is(join(' ', map { result($_) } @waiters), join(' ', (1) x 20), "$how: one append wakes all who wait for it");
	@waiters = map { start_waiter(wait_sql($tables[ $_ % 4 ], $_ % 4 == 0 ? 1 : 0)) } 1 .. 20;
	asleep(20);
	$node->safe_psql('postgres', join ';', 'BEGIN', (map { "SELECT event_store.append('$_', 's-1', 'T', '{}')" } @tables), 'COMMIT');
	is(join(' ', map { result($_) } @waiters), join(' ', (1, 1, 1, 2) x 5), "$how: a transaction that appends to several tables wakes those of each");
	$node->safe_psql('postgres', 'DROP TABLE ' . join ', ', @tables);
	return;
}

wakes('with the worker');
circumstances('with the worker');
crowd('with the worker');

# The worker, and the launcher, may end at any time.
$node->safe_psql('postgres', q{SELECT event_store.create_event_table('ev')});
my $end = append('ev');
for my $type ('worker', 'launcher')
{
	for my $when ('before', 'after')
	{
		my @waiters = map { start_waiter(wait_sql('ev', $end)) } 1 .. 3;

		asleep(3);
		eventually($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_store $type' AND coalesce(datname = current_database(), true)", "there is a $type");
		my $pid = $node->safe_psql('postgres', "SELECT pg_terminate_backend(pid), pid FROM pg_stat_activity WHERE backend_type = 'event_store $type' AND coalesce(datname = current_database(), true)") =~ s/.*\|//r;
		$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_store $type' AND pid <> $pid AND coalesce(datname = current_database(), true)")
		  if $when eq 'after';
		$end = append('ev');
		is(join(' ', map { result($_) } @waiters), "$end $end $end", "the $type ends while somebody waits, and an append comes $when another one does");
	}
}
$node->safe_psql('postgres', 'DROP TABLE ev');

# Without a worker.  The last setting of a name counts.
for (
	[ 'without worker slots', 'max_worker_processes = 2', 1 ],
	[ 'without a launcher', 'max_worker_processes = 1', 0 ],
	[ 'with more tables than slots', "max_worker_processes = 8\nevent_store.max_event_tables = 1", 1 ],
	[ 'without preload', "shared_preload_libraries = ''", 0 ])
{
	my ($how, $settings, $launchers) = @$_;

	$node->stop;
	$node->adjust_conf('postgresql.conf', 'event_store.max_event_tables', undef);
	$node->append_conf('postgresql.conf', $settings);
	$node->start;
	wakes($how);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_store launcher'}), $launchers, "$how: launchers");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = current_database()}), 0, "$how: no worker")
	  if $how ne 'with more tables than slots';
}
circumstances('without preload');
crowd('without preload');

log_is_clean($node);
$node->stop;
done_testing();
