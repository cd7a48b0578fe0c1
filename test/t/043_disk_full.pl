# The disk is full: first the volume of an event table, then that of the WAL.  Appends
# fail with 53100, or PostgreSQL stops and cannot recover before there is space again.  What
# has been acknowledged, or delivered, is there then, and all goes on.
#
# The volumes are file systems in memory, mounted in a namespace of our own, which takes
# no privileges where the kernel lets users have such.
use strict;
use warnings;

BEGIN
{
	my @unshare = ('unshare', '--user', '--map-current-user', '--mount', '--keep-caps');

	if (!$ENV{EVENT_STORE_MOUNTS})
	{
		my $error = `@unshare mount -t tmpfs none /tmp 2>&1`;

		if ($? != 0)
		{
			chomp $error;
			print "1..0 # SKIP a file system cannot be mounted here: $error\n";
			exit 0;
		}
		$ENV{EVENT_STORE_MOUNTS} = 1;
		exec @unshare, $^X, (map { "-I$_" } @INC), $0 or die "unshare: $!";
	}
}

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;

sub volume
{
	my ($name, $size) = @_;

	mkdir "$dir/$name" or die "$dir/$name: $!";
	system_or_bail('mount', '-t', 'tmpfs', '-o', "size=$size", 'none', "$dir/$name");
	return "$dir/$name";
}

my $wal = volume('wal', '24m');
my $data = volume('data', '2m');
my $node = PostgreSQL::Test::Cluster->new('disk_full');
$node->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8', '--wal-segsize=1', "--waldir=$wal/pg_wal" ]);
$node->append_conf('postgresql.conf', <<'EOT');
log_line_prefix = '%m [%p] %e %q%u@%d '
log_statement = none
fsync = on
shared_preload_libraries = 'event_store'
max_wal_size = 1GB
min_wal_size = 2MB
checkpoint_timeout = 1h
autovacuum = off
EOT
$node->start;
$node->safe_psql('postgres', <<"EOT");
CREATE EXTENSION event_store;
CREATE TABLESPACE small LOCATION '$data';
SELECT event_store.create_event_table('ev');
SET default_tablespace = small;
SELECT event_store.create_event_table('full_one');
RESET default_tablespace;
CREATE TABLE totals (type text PRIMARY KEY, n bigint);
SELECT event_store.create_projection('totals', 'ev', 'INSERT INTO totals SELECT type, count(*) FROM events GROUP BY type ON CONFLICT (type) DO UPDATE SET n = totals.n + EXCLUDED.n');
EOT

# Three events of 1 kB each, in a stream of one's own.
sub append_sql
{
	my ($event_table) = @_;

	return "SELECT first_version || ' ' || last_position FROM event_store.append_batch('$event_table', 's-' || pg_backend_pid(), '{A,B,C}', (SELECT array_agg(to_jsonb(repeat(md5(random()::text), 30))) FROM generate_series(1, 3)));\n";
}

# The data volume.  A session appends until it is full, and beyond.
{
	my ($out, $err) = ('', '');
	my $script = append_sql('full_one') x 1500 . "SELECT 'lives on';\n" . append_sql('ev');
	IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres') ], '<', \$script, '>', \$out, '2>', \$err);
	my $acknowledged = () = $out =~ /^\d+ \d+$/mg;
	my %errors = map { $_ => 1 } $err =~ /^(.*ERROR.*)$/mg;

	like($err, qr/^ERROR:  53100$/m, 'a full volume: appends are refused');
	is(join(', ', keys %errors), 'ERROR:  53100', 'with that SQLSTATE and no other one');
	like($out, qr/^lives on\n1 \d+$/m, 'the session lives on, and appends to tables elsewhere');
	$acknowledged--;    # to that one
	cmp_ok($acknowledged, '>', 50, 'some had been acknowledged');
	is($node->safe_psql('postgres', 'SELECT count(*), max(version) FROM full_one'), join('|', 3 * $acknowledged, 3 * $acknowledged), 'those are there, and no more');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.read_all('full_one', max_count => 100000)}), 3 * $acknowledged, 'the feed has them');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, 'who failed holds nothing back');

	system_or_bail('mount', '-o', 'remount,size=32m', $data);
	like($node->safe_psql('postgres', append_sql('full_one')), qr/^1 /, 'with space again, appends go on');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.read_all('full_one', max_count => 100000)}), 3 * $acknowledged + 3, 'and so does the feed');
}

# The WAL's volume: four sessions append, and one reads the feed.
{
	my @runs;

	append_to_file("$dir/append.sql", append_sql('ev') x 10000);
	append_to_file("$dir/read.sql", <<'EOT' x 10000);
SELECT string_agg((e ->> 'position') || ' ' || (e ->> 'event_id'), E'\n' ORDER BY (e ->> 'position')::bigint), coalesce(max((e ->> 'position')::bigint), :after) AS after FROM event_store.read_batch('ev', after => :after, max_count => 50) b, jsonb_array_elements(b.events) e \gset
\if :{?string_agg}
\echo :string_agg
\endif
EOT
	for my $n (1 .. 4)
	{
		push @runs, IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', "$dir/append.sql" ], '>', "$dir/acknowledged$n", '2>', "$dir/errors$n");
	}
	push @runs, IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'after=0', '-d', $node->connstr('postgres'), '-f', "$dir/read.sql" ], '>', "$dir/delivered", '2>', "$dir/errors5");
	$_->finish for @runs;
	like(slurp_file($node->logfile), qr/PANIC: .*No space left on device/, 'the volume of the WAL is full: PostgreSQL stops');

	# It may have come up again for a moment, or have given up.
	$node->_update_pid(-1);
	$node->stop('immediate', fail_ok => 1);
	system_or_bail('mount', '-o', 'remount,size=256m', $wal);
	$node->start;

	my @acknowledged = map { slurp_file("$dir/acknowledged$_") =~ /^\d+ (\d+)$/mg } 1 .. 4;
	my @delivered = split /\n/, slurp_file("$dir/delivered");
	my %there = map { split / / } split /\n/, $node->safe_psql('postgres', q{SELECT position || ' ' || event_id FROM ev});
	cmp_ok(scalar(@acknowledged), '>', 100, 'appends had been acknowledged');
	cmp_ok(scalar(@delivered), '>', 100, 'events had been delivered');
	is(scalar(grep { !$there{$_} } @acknowledged), 0, 'with space again, each of them is there');
	is(scalar(grep { my ($position, $id) = split / /; !defined $id || ($there{$position} // '') ne $id } @delivered), 0, 'the same events stand where they were delivered');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT stream FROM ev GROUP BY stream HAVING count(*) <> max(version) OR count(*) % 3 <> 0) s'), 0, 'no batch is there by half');

	my ($after, $id) = split / /, $delivered[-1];
	is($node->safe_psql('postgres', "SELECT count(*) - (SELECT count(*) FROM ev WHERE position > $after) FROM event_store.read_all('ev', after => $after, after_event_id => '$id', max_count => 1000000)"), 0, 'the reader goes on where it was');
	like($node->safe_psql('postgres', append_sql('ev')), qr/^1 /, 'appends go on');
	caught_up($node, 'totals', 'the projection goes on');
	is_fold($node, 'SELECT type, n FROM totals', 'SELECT type, count(*) FROM ev GROUP BY type', 'and counts each event once');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, 'no lock is left');
}

my @bad = grep { /PANIC:|TRAP:| XX[0-9A-Z]{3} |WARNING: .*(?:leak|still referenced)|terminated by signal/ && !/No space left on device|terminated by signal 6/ } split /\n/, slurp_file($node->logfile);
is(join("\n", @bad), '', 'the log has only what a full disk brings about');
$node->stop;
done_testing();
