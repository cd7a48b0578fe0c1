# 200 projections of two owners on one event table: all catch up, all keep up, and cost nothing when there
# is nothing to do.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PGOPTIONS} = '-c statement_timeout=100s';

my $node = new_server('many', no_extension => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
autovacuum = off
restart_after_crash = off
EOT
my @owners = qw(one two);
$node->safe_psql('postgres', <<'EOT');
CREATE EXTENSION event_store;
SELECT event_store.create_event_table('ev');
EOT
for my $owner (@owners)
{
	$node->safe_psql('postgres', <<"EOT");
CREATE ROLE $owner LOGIN;
GRANT SELECT ON ev TO $owner;
CREATE TABLE counts_$owner (name text PRIMARY KEY, events bigint, positions numeric, version bigint);
ALTER TABLE counts_$owner OWNER TO $owner;
SET ROLE $owner;
SELECT event_store.create_projection('${owner}_' || i, 'ev', statement => format('INSERT INTO counts_$owner AS m SELECT %L, count(*), sum(position), max(version) FROM events
	ON CONFLICT (name) DO UPDATE SET events = m.events + excluded.events, positions = m.positions + excluded.positions, version = excluded.version', '${owner}_' || i))
  FROM generate_series(1, 100) i;
EOT
}

# All of them have counted each event once.
sub all_have_counted
{
	my ($name) = @_;
	my $expected = $node->safe_psql('postgres', 'SELECT count(*), sum(position), max(version) FROM ev');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually($node, q{SELECT bool_and(position = (SELECT max(position) FROM ev)) AND count(*) = 200 FROM event_store.projections}, $name);
	is($node->safe_psql('postgres', "SELECT count(*), events, positions, version FROM counts_$_ GROUP BY 2, 3, 4"), "100|$expected", "those of $_ have counted each event once") for @owners;
	return;
}

my $started = time;
$node->safe_psql('postgres', q{SELECT FROM generate_series(1, 20) b, event_store.append_batch('ev', 's-1', array_fill('T'::text, '{100}'), array_fill(to_jsonb(b), '{100}'))});
all_have_counted('200 projections catch up with 2,000 events');
cmp_ok(time - $started, '<', 30, 'soon');
$node->safe_psql('postgres', join ';', ( q{SELECT FROM event_store.append('ev', 's-1', 'T', '1')} ) x 20);
all_have_counted('they keep up with appends');

# Those who do not care for an event move on all the same.
$node->safe_psql('postgres', q{SELECT event_store.alter_projection('one_' || i, types => '{Rare}') FROM generate_series(1, 100) i});
$node->safe_psql('postgres', q{SELECT FROM generate_series(1, 20) n, event_store.append('ev', 's-1', 'T', to_jsonb(n))});
eventually($node, q{SELECT bool_and(position = (SELECT max(position) FROM ev)) FROM event_store.projections}, 'checkpoints move on where no event is of a wanted type');
is($node->safe_psql('postgres', 'SELECT DISTINCT events FROM counts_one'), 2020, 'which is not handled');
is($node->safe_psql('postgres', 'SELECT DISTINCT events FROM counts_two'), 2040, 'but by others');

# The processes, and how often each has slept and what CPU time it has had.
sub costs
{
	my ($slept, $ticks) = (0, 0);

	for my $pid (split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'event_store %'}))
	{
		$slept += $1 if slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
		my @stat = split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //r;
		$ticks += $stat[11] + $stat[12];
	}
	return ($slept, $ticks);
}
my ($slept, $ticks, $wal);
for (1 .. 5)
{
	my ($slept_before, $ticks_before) = costs();
	$wal = $node->safe_psql('postgres', <<'EOT');
SELECT pg_current_wal_insert_lsn() AS before \gset
SELECT event_store.wait_for_events('ev', 1000000, '1 s') \g /dev/null
SELECT pg_current_wal_insert_lsn() - :'before';
EOT
	my ($slept_after, $ticks_after) = costs();
	($slept, $ticks) = ($slept_after - $slept_before, $ticks_after - $ticks_before);
	last if $slept <= 10 && $ticks <= 1 && $wal == 0;
}
cmp_ok($slept, '<=', 10, 'when idle for a second, hardly a process has woken up');
cmp_ok($ticks, '<=', 1, 'no CPU time is used');
is($wal, 0, 'and no WAL written');
is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.projections WHERE status <> 'running' OR errors > 0}), 0, 'none has failed');
is(background_complaints($node), '', 'nobody complains');

log_is_clean($node);
$node->stop;
done_testing();
