# A thousand connections at once, each of which appends to its stream and reads the
# feed, while some wait and some listen.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $count = $ENV{MANY_CONNECTIONS} || 1000;
my $dir = PostgreSQL::Test::Utils::tempdir;

chomp(my $files = `sh -c 'ulimit -Hn'`);
plan skip_all => "a process may have no more than $files files open here" if $files ne 'unlimited' && $files < $count + 100;

my ($include, $lib) = map { my $dir = `$ENV{PG_CONFIG} --$_`; chomp $dir; $dir } 'includedir', 'libdir';
system_or_bail($ENV{CC} || 'cc', '-O', '-Wall', '-Werror', "-I$include", '-o', "$dir/many", 'test/t/044_many_connections.c', "-L$lib", "-Wl,-rpath,$lib", '-lpq');

my $node = new_server('many_connections', conf => <<"EOT");
shared_preload_libraries = 'event_store'
max_connections = @{[ $count + 100 ]}
max_worker_processes = 20
fsync = off
autovacuum = off
EOT
$node->safe_psql('postgres', q{SELECT event_store.create_event_table('ev'); SELECT event_store.create_event_table('load')});
append_to_file("$dir/load.sql", "\\set s random(1, 1000)\nSELECT event_store.append('load', 's-' || :client_id || '-' || :s, 'T', '{}');\n");

# Appends a second by eight clients.
sub rate
{
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'pgbench', '-n', '-M', 'prepared', '-c', 8, '-j', 2, '-T', 3, '-f', "$dir/load.sql", $node->connstr('postgres') ], '>', \$out, '2>', \$err);
	unlike($err, qr/error|aborted/i, 'eight clients append');
	return $out =~ /^tps = ([\d.]+)/m ? $1 : die "$out$err";
}

# Memory that is theirs alone, in kB.
sub memory_of_backends
{
	my @pids = split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
	my @sizes = sort { $a <=> $b } map { slurp_file("/proc/$_/status") =~ /^RssAnon:\s+(\d+)/m } @pids;

	return @sizes;
}

my $alone = rate();
my ($in, $out, $err) = ('', '', '');
my $many = IPC::Run::start([ "$dir/many", $node->connstr('postgres'), $count ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(3 * $PostgreSQL::Test::Utils::timeout_default));
$many->pump until $out =~ /connected/ || !$many->pumpable;
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()}), $count, "$count connections are open, and have appended");

my @memory = memory_of_backends();
note(sprintf 'memory of an idle one: %.1f MB (median), %.1f MB (most)', $memory[@memory / 2] / 1024, $memory[-1] / 1024);
my $among_many = rate();
note(sprintf '%.0f appends a second by 8 clients alone, %.0f among %d others: %.2f', $alone, $among_many, $count, $among_many / $alone);

$in .= "go\n";
$many->finish;
is($err, '', 'all at one moment: no error');
like($out, qr/^done$/m, 'each has appended or waited, all listeners are told, each reads the whole feed');

my $waiters = grep { $_ % 5 == 1 } 0 .. $count - 1;
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT stream) FROM ev'), join('|', 2 * $count - $waiters, $count), 'the table has all events');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, 'no lock is left');
is(background_complaints($node), '', 'the worker has no complaints');
log_is_clean($node);
$node->stop;
done_testing();
