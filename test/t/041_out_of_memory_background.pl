# Out of memory in background processes: allocations of the worker, of the
# projector and of the launcher fail, as they run and as they start; each time they
# recover by themselves, and nothing is lost.  See 040_out_of_memory.pl.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $steps = $ENV{OUT_OF_MEMORY_STEPS} || 30;
my $node = new_server('out_of_memory', hooks => 1, allows_streaming => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
max_worker_processes = 20
event_store.test_retry = 1
event_store.notify_interval = 1
event_store.standby_interval = 1
fsync = off
EOT

$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
CREATE TABLE totals (type text PRIMARY KEY, n bigint);
CREATE TABLE seen (position bigint PRIMARY KEY);
CREATE FUNCTION handle(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (event.position); END $$;
SELECT event_store.create_projection('totals', 'ev', 'INSERT INTO totals SELECT type, count(*) FROM events GROUP BY type ON CONFLICT (type) DO UPDATE SET n = totals.n + EXCLUDED.n', retry_delay => '10 ms');
SELECT event_store.create_projection('seen', 'ev', function => 'handle(event_store.event)', partitions => 2, on_error => 'park', max_attempts => 1, retry_delay => '10 ms');
EOT

my $session = $node->background_psql('postgres', on_error_stop => 1);
my $position;

sub append
{
	$position = $session->query_safe(q{SELECT last_position FROM event_store.append_batch('ev', 's-' || (random() * 9)::int, '{T,U,T}', '{1,2,3}')});
	return;
}

# Whether everybody has it now, or soon: waiters, listeners, standbys, projections.
$node->safe_psql('postgres', <<'EOT');
CREATE FUNCTION delivered(reached bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 50 LOOP
		IF (SELECT checkpoint >= reached AND last_notified_at IS NOT NULL FROM event_store.feeds WHERE event_table = 'ev'::regclass)
			AND (SELECT mark >= reached FROM event_store.feed_marks WHERE event_table = 'ev'::regclass)
			AND (SELECT count(*) = 3 AND min("position") >= reached FROM event_store.projection_checkpoints)
		THEN
			RETURN true;
		END IF;
		PERFORM pg_sleep(0.002);
	END LOOP;
	RETURN false;
END $$;
EOT

sub delivered
{
	return $session->query_safe("SELECT delivered($position)") eq 't';
}

sub until_true
{
	my ($condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($condition->())
	{
		return 0 if time > $end;
		usleep(2000);
	}
	return 1;
}

# The n-th allocation shall fail, once in each process of the type fail_in; 0: none.
# Our own session shows when the postmaster knows it.
sub arm
{
	my ($n) = @_;

	$session->query_safe("ALTER SYSTEM SET event_store.test_fail_alloc = $n");
	$session->query_safe('SELECT pg_reload_conf()');
	return until_true(sub { $session->query_safe('SHOW event_store.test_fail_alloc') == $n });
}

append();
ok(until_true(\&delivered), 'all is delivered') or BAIL_OUT('nothing works');

for my $case ([ 'worker', 1 ], [ 'worker', 0 ], [ 'projector', 1 ], [ 'projector', 0 ], [ 'launcher', 1 ])
{
	my ($type, $starting) = @$case;
	my $what = $starting ? 'that starts' : 'that runs';
	my $there = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_store $type' AND state = 'idle'";
	my ($failures, $n, $not_reached) = (0, 0, 0);
	my @bad;

	$session->query_safe("ALTER SYSTEM SET event_store.test_fail_in = 'event_store $type'");
	# Behind the first ones, every so many, until there are no more.
	while ($not_reached < 3 && $failures < $steps && !@bad)
	{
		my $offset = -s $node->logfile;
		my $failed = sub { slurp_file($node->logfile, $offset) =~ /allocation $n of event_store fails/ };

		$n += $failures < $steps / 2 ? 1 : 5;
		arm($n) or push @bad, "$n: not armed";
		$session->query_safe("SELECT pg_terminate_backend(pid, 10000) FROM ($there) s") if $starting;
		append();
		until_true(sub { $failed->() || delivered() && $session->query_safe("SELECT EXISTS ($there)") eq 't' }) or push @bad, "$n: it neither failed nor delivered";
		if   ($failed->()) { $failures++; $not_reached = 0 }
		else               { $not_reached++ }
		arm(0) or push @bad, "$n: not disarmed";
		append();
		until_true(\&delivered) or push @bad, "$n: not delivered: " . $session->query_safe('SELECT * FROM event_store.feeds; SELECT * FROM event_store.projections');
	}
	is(join("\n", @bad), '', "a $type $what recovers from each of $failures failures, up to allocation $n");
	cmp_ok($failures, '>', 1, 'there were some');
}
$session->quit;

is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.parked_events}), 0, 'none of it was an event\'s fault');
is_fold($node, 'SELECT type, n FROM totals', 'SELECT type, count(*) FROM ev GROUP BY type', 'the statement has counted each event once');
is_fold($node, 'SELECT position FROM seen', 'SELECT position FROM ev', 'the function was called for each event once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, 'no lock is left');
is(join("\n", grep { !/53200|57P01|its process could not start/ } split /\n/, background_complaints($node)), '', 'they have complained of nothing else');
log_is_clean($node);
$node->stop;
done_testing();
