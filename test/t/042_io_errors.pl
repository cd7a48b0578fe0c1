# Disks that fail: the n-th write, flush or read of a backend that creates tables,
# appends and reads returns EIO or ENOSPC, by strace.  A statement either fails and
# leaves nothing, or what it has acknowledged is there for ever.  Where the WAL cannot
# be written, or flushed, PostgreSQL stops all and recovers: that is its rule.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $most = $ENV{IO_ERRORS_STEPS} || 4;    # calls of each kind that fail
my $dir = PostgreSQL::Test::Utils::tempdir;

# Strace of a process, when it has attached to it; undef where that is not permitted.
sub strace
{
	my ($pid, @options) = @_;
	my $err = "$dir/strace.err";
	my $run = IPC::Run::start([ 'strace', '-qq', '-o', "$dir/strace", @options, '-p', $pid ], '<', '/dev/null', '>', '/dev/null', '2>', $err);

	until (slurp_file("/proc/$pid/status") =~ /^TracerPid:\s+[1-9]/m)
	{
		$run->pump_nb;
		return undef unless $run->pumpable;
		usleep(1000);
	}
	return $run;
}

# May we?
{
	my $sleeper = IPC::Run::start([ 'sleep', '60' ]);
	my $run = strace($sleeper->{KIDS}[0]{PID}, '-e', 'inject=fsync:error=EIO');
	my $error = slurp_file("$dir/strace.err");

	$run->kill_kill if $run;
	$sleeper->kill_kill;
	plan skip_all => "strace cannot attach to a process here: $error" unless $run;
}

# So few buffers that a backend has to read and write blocks by itself.
my $node = new_server('io_errors', conf => <<'EOT');
fsync = on
shared_buffers = 1MB
bgwriter_delay = 10s
wal_writer_delay = 10s
checkpoint_timeout = 1h
autovacuum = off
EOT
$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
SELECT event_store.append_batch('ev', 'old-' || i, array_fill('T'::text, '{50}'), array_agg(to_jsonb(repeat(md5(i || '.' || j), 40)))) FROM generate_series(1, 40) i, generate_series(1, 50) j GROUP BY i;
EOT

my $number = 0;    # of tries
my %acknowledged;  # event table and stream => its events
my %unknown;       # what was under way when the server stopped
my @refused;       # statements that were refused

sub data
{
	my ($count) = @_;

	return "array_fill('T'::text, '{$count}'), (SELECT array_agg(to_jsonb(repeat(md5(random()::text), 40))) FROM generate_series(1, $count))";
}

# One session in which the n-th call of a kind fails.  Returns how it went: whether
# the call was reached, and the errors.
sub try
{
	my ($call, $error, $n) = @_;
	my ($psql, $in, $out, $err) = (undef, '', '', '');
	my @errors;

	$number++;
	$psql = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-v', 'VERBOSITY=sqlstate' ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	# The result of a statement; undef if it fails.
	my $query = sub {
		my ($sql) = @_;

		$out = $err = '';
		$in .= "$sql;\n\\echo done\n";
		$psql->pump until $out =~ /^done$/m || !$psql->pumpable;
		$psql->finish if !$psql->pumpable;
		return undef if $err ne '' || $out !~ /^done$/m;
		return $out;
	};

	my ($pid) = $query->('SELECT pg_backend_pid()') =~ /(\d+)/;
	my $strace = strace($pid, '-e', "trace=$call", '-e', "inject=$call:error=$error:when=$n") or die 'strace did not attach';
	for my $statement (
		[ 'ev', "new-$number", 1 ], [ 'ev', "new-$number", 1 ], [ 'ev', "batch-$number", 60 ],
		[ "made_$number" ], [ "made_$number", 'new-1', 3 ],
		[], [ 'ev', "last-$number", 1 ])
	{
		my ($event_table, $stream, $count) = @$statement;
		my $sql =
			$count       ? "SELECT first_version FROM event_store.append_batch('$event_table', '$stream', " . data($count) . ')'
		  : $event_table ? "SELECT event_store.create_event_table('$event_table')"
		  :                q{SELECT count(*) FROM event_store.read_all('ev', max_count => 1000000)};
		my $what = $count ? "$event_table $stream" : $event_table;

		if (defined $query->($sql))
		{
			$acknowledged{$what} += $count || 0 if $what;
		}
		else
		{
			push @errors, $err =~ /(\w{5})$/m ? $1 : 'no SQLSTATE';
			push @refused, $what if $what && $err =~ /^ERROR:  (?!42P01)/m;
			if (!$psql->pumpable)
			{
				$unknown{$what} = $count || 0 if $what;
				last;
			}
		}
	}
	my $stopped = !$psql->pumpable;
	$strace->signal('TERM');
	eval { $strace->finish };
	unless ($stopped)
	{
		$in .= "\\q\n";
		$psql->finish;
	}
	comes_back($node) if $stopped;
	return (slurp_file("$dir/strace") =~ /\(INJECTED\)/ ? 1 : 0, @errors);
}

# What is not as it was acknowledged; and streams of which a part is there.
sub differences
{
	my %there = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{SELECT 'ev ' || stream, count(*) FROM ev WHERE stream !~ '^old' GROUP BY stream});
	my @bad;

	for my $made (split /\n/, $node->safe_psql('postgres', q{SELECT event_table FROM event_store.event_tables WHERE event_table::text LIKE 'made%'}))
	{
		$there{$made} = 0;
		my $count = $node->safe_psql('postgres', "SELECT count(*) FROM $made WHERE stream = 'new-1'");
		$there{"$made new-1"} = $count if $count;
	}
	for my $what (sort keys %{ { %there, %acknowledged } })
	{
		my ($is, $should, $may) = ($there{$what} // -1, $acknowledged{$what} // -1, $unknown{$what} // 0);
		my $also = $should < 0 && exists $unknown{$what} ? $may : $should + $may;

		push @bad, "$what: $is, not $should" unless $is == $should || $is == $also;
		$acknowledged{$what} = $is if $is >= 0;
	}
	%unknown = ();
	return join '; ', @bad;
}

my $offset = -s $node->logfile;
for my $case ([ 'pwrite64', 'EIO' ], [ 'pwrite64', 'ENOSPC' ], [ 'fdatasync', 'EIO' ], [ 'pread64', 'EIO' ], [ 'openat', 'EIO' ])
{
	my ($call, $error) = @$case;
	my ($reached, $failed, $n) = (0, 0, 0);
	my (@bad, %errors);

	while ($reached < $most)
	{
		$n += $n < $most / 2 ? 1 : 3;
		my ($hit, @errors) = try($call, $error, $n);
		last unless $hit;
		$reached++;
		$failed++ if @errors;
		$errors{$_}++ for @errors;
		my $differences = differences();
		push @bad, "$call $n: $differences" if $differences;
	}
	note("$call $error: $reached times, $failed of them with errors: ", join ', ', map { "$_ ($errors{$_})" } sort keys %errors);
	cmp_ok($failed, '>', 0, "$call fails with $error: statements have failed");
	is(join("\n", @bad), '', "$call fails with $error, $reached times: all that was acknowledged is there, and nothing by half");
}

is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT stream FROM ev GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1) s}), 0, 'versions without gap');
is($node->safe_psql('postgres', q{SELECT count(*) - (SELECT count(*) FROM event_store.read_all('ev', max_count => 1000000)) FROM ev}), 0, 'the feed has them all');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, 'no lock is left');
$node->command_ok([ 'pg_amcheck', '--heapallindexed', '--install-missing', 'postgres' ], 'tables and indexes agree');

# PostgreSQL's own PANICs, about the files that could not be written or flushed, and
# what follows from them, are all that the log may have.
my @log = grep { /PANIC:|TRAP:| XX[0-9A-Z]{3} |WARNING: .*(?:leak|still referenced)|terminated by signal/ } split /\n/, slurp_file($node->logfile, $offset);
my @others = grep { !/PANIC:  could not (?:write to log file|fdatasync file|fsync file|open file)|terminated by signal 6|(?:Input\/output error|No space left on device)/ } @log;
is(join("\n", @others[0 .. ($#others < 5 ? $#others : 5)]), '', 'the log has only what the faults bring about');
$node->stop;
done_testing();
