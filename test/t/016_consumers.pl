# The consumers of examples/, each event exactly once whatever dies: the server,
# a connection, the answer to a COMMIT, the consumer.
use strict;
use warnings;

use EventStoreTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $dir = PostgreSQL::Test::Utils::tempdir;
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $include = `$pg_config --includedir`);
chomp(my $lib = `$pg_config --libdir`);
$ENV{NODE_PATH} = join ':', $ENV{NODE_PATH} || (), '/usr/share/nodejs';

# What they are called in pg_stat_activity, how they are started, which table
# has their checkpoint, and which rows say that a read model is not what the
# event table says.
my %consumers = (
	consumer_c => {
		command    => ["$dir/consumer"],
		checkpoint => 'events_per_type_checkpoint',
		wrong      => q{SELECT * FROM (SELECT type, count(*) FROM ev GROUP BY type) t (type, events) FULL JOIN events_per_type m USING (type, events) WHERE t IS NULL OR m IS NULL} },
	consumer_node => {
		command    => [ 'node', 'examples/consumer_node/consumer.js' ],
		checkpoint => 'events_per_stream_checkpoint',
		wrong      => q{SELECT * FROM (SELECT stream, count(*), max(version) FROM ev GROUP BY stream) t (stream, events, version) FULL JOIN events_per_stream m USING (stream, events, version) WHERE t IS NULL OR m IS NULL} });
my @names = sort keys %consumers;

# Every process that we have started and that has not been waited for.
my %running;
$SIG{TERM} = $SIG{INT} = $SIG{HUP} = sub { exit 1 };
END
{
	local $?;
	kill 'KILL', keys %running;
	waitpid $_, 0 for keys %running;
}

# The tables are in place, and their consumers can be started.
sub prepare
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{SELECT event_store.create_event_table('ev')});
	$node->safe_psql('postgres', slurp_file("examples/$_/tables.sql")) for @names;
	@ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)} = ($node->host, $node->port, 'postgres', $node->safe_psql('postgres', 'SELECT current_user'));
	return;
}

# Starts a consumer, whose messages go to a file; returns its process.
sub start_consumer
{
	my ($name, @arguments) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		delete $ENV{PGAPPNAME};
		open STDIN,  '<',  '/dev/null';
		open STDOUT, '>>', "$dir/$name.log";
		open STDERR, '>&', \*STDOUT;
		exec @{ $consumers{$name}{command} }, @arguments or POSIX::_exit(127);
	}
	$running{$pid} = 1;
	return $pid;
}

# Sends a signal, if any, and returns the status with which the process ends.
sub end_of
{
	my ($pid, $signal) = @_;

	kill $signal, $pid if $signal;
	local $SIG{ALRM} = sub { die "process $pid does not end" };
	alarm $PostgreSQL::Test::Utils::timeout_default;
	waitpid $pid, 0;
	alarm 0;
	delete $running{$pid};
	return $? & 127 ? 'signal ' . ($? & 127) : $? >> 8;
}

# A query that is true as soon as all consumers are at the last event.
my $caught_up = 'SELECT ' . join ' AND ', map { "(SELECT max(position) FROM ev) = (SELECT position FROM $consumers{$_}{checkpoint})" } @names;

# They are connected, and have looked.
my $looked = q{(SELECT count(DISTINCT application_name) = 2 FROM pg_stat_activity WHERE application_name LIKE 'consumer\_%' AND state = 'idle' AND query LIKE '%read_batch%')};

sub are_exact
{
	my ($node, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('postgres', "$caught_up AND $looked"), "$name: the consumers catch up")
	  or diag(map { slurp_file("$dir/$_.log") } @names);
	is($node->safe_psql('postgres', $consumers{$_}{wrong}), '', "$name: $_ has each event once") for @names;
	return;
}

# Writers of all kinds, not faster than the consumers.
append_to_file("$dir/plain.sql", <<'EOT');
\set s random(1, 9)
\set t random(1, 3)
SELECT event_store.append('ev', 'w-' || :s, 'T' || :t, '{}');
EOT
append_to_file("$dir/slow.sql", <<'EOT');
\set s random(1, 9)
BEGIN;
SELECT event_store.append('ev', 'slow-' || :s, 'Slow', '{}');
\sleep 20 ms
INSERT INTO ev (stream, type, data) SELECT 'slow-' || :s, 'Slow', '{}' FROM generate_series(1, 3);
COMMIT;
EOT
append_to_file("$dir/lost.sql", <<'EOT');
\set s random(1, 9)
BEGIN;
SELECT event_store.append('ev', 'w-' || :s, 'Lost', '{}');
ROLLBACK;
EOT

# Runs the code while writers are at work, and stops them, if the code has not.
sub under_load
{
	my ($node, $code) = @_;
	my ($out, $err) = ('', '');
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM ev');
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-T', 600, '-R', 200,
			'-f', "$dir/plain.sql\@6", '-f', "$dir/slow.sql\@2", '-f', "$dir/lost.sql\@1", $node->connstr('postgres') ],
		'>', \$out, '2>', \$err);

	$node->poll_query_until('postgres', "SELECT count(*) > $before + 30 FROM ev") or die "no load: $err";
	$code->();
	$load->signal('TERM');
	$load->finish;
	return;
}

# Runs the code while all consumers wait for a lock in the midst of a batch,
# their checkpoint moved, and not committed.
sub in_mid_batch
{
	my ($node, $code) = @_;
	my $locker = $node->background_psql('postgres');

	$locker->query_safe('BEGIN; LOCK TABLE events_per_type, events_per_stream IN SHARE MODE');
	$node->safe_psql('postgres', q{INSERT INTO ev (stream, type, data) SELECT 'batch-' || i, 'Batch', '{}' FROM generate_series(1, 9) i});
	eventually($node, q{SELECT count(DISTINCT application_name) = 2 FROM pg_stat_activity WHERE application_name LIKE 'consumer\_%' AND wait_event_type = 'Lock'},
		'the consumers are in the midst of a batch');
	$code->();
	$locker->quit;
	return;
}

# Ten appends, each when the consumers have handled the one before.  Whoever
# only polls needs a second for each.
sub are_notified
{
	my ($node, $name) = @_;
	my $writer = $node->background_psql('postgres');
	my $begin = time;

	for (1 .. 10)
	{
		$writer->query_safe(q{SELECT event_store.append('ev', 'w-1', 'T1', '{}')});
		usleep(5000) until $writer->query_safe($caught_up) eq 't' || time > $begin + 60;
	}
	cmp_ok(time - $begin, '<', 6, $name);
	$writer->quit;
	return;
}

# Kills the server.  Its backends find out by themselves, a little later; until
# then it does not start.
sub kill_server
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	$node->kill9;
	usleep(10_000) while kill(0, $postmaster) && time < $deadline;
	until ($node->start(fail_ok => 1))
	{
		die 'the server does not start' if time > $deadline;
		$node->stop('fast', fail_ok => 1);
	}
	return;
}

is(system($ENV{CC} || 'cc', qw(-O2 -Wall -Wextra -Werror -o), "$dir/consumer", 'examples/consumer_c/consumer.c', "-I$include", "-L$lib", "-Wl,-rpath,$lib", '-lpq'),
	0, 'the consumer in C is built without a warning');

# The library preloaded: the worker notifies.
my $node = new_server('consumers', allows_streaming => 1, conf => "shared_preload_libraries = 'event_store'");
prepare($node);

for my $name (@names)
{
	for my $case ([2], [ 2, '--once' ], [ 2, 'ev', 'ev' ], [ 2, '' ], [ 1, 'no_such_table' ], [ 1, 'pg_class' ])
	{
		my ($status, @arguments) = @$case;
		my ($out, $err) = ('', '');
		IPC::Run::run([ @{ $consumers{$name}{command} }, @arguments ], '>', \$out, '2>', \$err);
		is($out . ($? >> 8), $status, "$name (@arguments) ends with status $status");
		like($err, $status == 2 ? qr/^usage: / : qr/"$arguments[0]" (?:does not exist|is not an event table)/, 'and says why');
	}
}

my %pid = map { $_ => start_consumer($_, 'ev') } @names;
eventually($node, "SELECT $looked", 'both listen, before the first event');
are_notified($node, 'they do not depend on their polls');
are_exact($node, 'at first');

under_load($node, sub { $node->restart });
are_exact($node, 'a fast restart');
under_load($node, sub { $node->stop('immediate'); $node->start });
are_exact($node, 'an immediate shutdown');
in_mid_batch($node, sub { $node->stop('immediate'); $node->start });
are_exact($node, 'an immediate shutdown in the midst of a batch');

# They are halted, so that they have not seen all when the server dies.
under_load($node, sub {
	kill 'STOP', values %pid;
	my $seen = $node->safe_psql('postgres', 'SELECT count(*) FROM ev');
	$node->poll_query_until('postgres', "SELECT count(*) > $seen + 30 FROM ev");
	kill_server($node);
});
kill 'CONT', values %pid;
are_exact($node, 'a server killed while they were halted');

my $terminate = q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name LIKE 'consumer\_%'};
under_load($node, sub { $node->safe_psql('postgres', $terminate) for 1 .. 3 });
are_exact($node, 'connections terminated');
in_mid_batch($node, sub { $node->safe_psql('postgres', $terminate) });
are_exact($node, 'connections terminated in the midst of a batch');

# Their COMMITs wait for a standby that does not exist.  They are done, on this
# server, when the connections are terminated, and nobody has told the clients.
$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('synchronous_standby_names') = 'nobody'});
$node->safe_psql('postgres', q{SET synchronous_commit = local; SELECT event_store.append('ev', 'w-1', 'Answer', '{}')});
eventually($node, q{SELECT count(*) >= 2 FROM pg_stat_activity WHERE application_name LIKE 'consumer\_%' AND wait_event = 'SyncRep' AND query = 'COMMIT'},
	'the answers to COMMIT are outstanding');
$node->safe_psql('postgres', $terminate);
$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
$node->safe_psql('postgres', q{SET synchronous_commit = local; SELECT event_store.append('ev', 'w-1', 'Answer', '{}')});
are_exact($node, 'the answers to COMMIT lost');

# The consumers die.
for my $how ('under load', 'in the midst of a batch')
{
	my $code = sub { %pid = map { is(end_of($pid{$_}, 'KILL'), 'signal 9', "$_ is killed"); $_ => start_consumer($_, 'ev') } @names };
	$how eq 'under load' ? under_load($node, $code) : in_mid_batch($node, $code);
	are_exact($node, "consumers killed $how, and started again");
}

# Two of each.
my @twins = map { start_consumer($_, 'ev') } @names;
in_mid_batch($node, sub {
	eventually($node, q{SELECT count(*) >= 4 FROM pg_stat_activity WHERE application_name LIKE 'consumer\_%' AND wait_event_type = 'Lock'}, 'two of each are at the same batch');
});
under_load($node, sub { $node->safe_psql('postgres', $terminate) });
are_exact($node, 'two of each at work');
is(end_of($_, 'TERM'), 0, 'SIGTERM ends one of the two') for @twins;

# Backends that do not answer any more, as if the network were gone.  Each is
# halted between two polls, when it holds no lock.  It takes the consumers ten
# seconds to find out; see below.
my @silent;
for my $name (@names)
{
	for (1 .. 1000)
	{
		my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = '$name'") || next;

		kill 'STOP', $pid;
		push @silent, $pid
		  if $node->safe_psql('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid") eq 't';
		last if @silent && $silent[-1] == $pid;
		kill 'CONT', $pid;
	}
}
is(@silent, 2, 'backends are halted');
my %other = map { $_ => $ENV{$_} } qw(PGHOST PGPORT);

# Not preloaded: each transaction that appends notifies.
my $plain = new_server('plain');
prepare($plain);
$plain->safe_psql('postgres', q{INSERT INTO ev (stream, type, data) SELECT 's-' || i % 7, 'T' || i % 3, '{}' FROM generate_series(1, 600) i});
for my $name (@names)
{
	is(end_of(start_consumer($name, '--once', 'ev')), 0, "$name --once ends by itself");
}
is($plain->safe_psql('postgres', $caught_up), 't', 'and has caught up');
my %plain = map { $_ => start_consumer($_, 'ev') } @names;
are_exact($plain, 'without the worker');
are_notified($plain, 'without the worker, too, they do not depend on their polls');
$plain->safe_psql('postgres', q{SET event_store.notify = off; SELECT event_store.append('ev', 'w-1', 'Unheard', '{}')});
are_exact($plain, 'an event of which nobody was notified');
under_load($plain, sub { $plain->safe_psql('postgres', 'BEGIN; DELETE FROM events_per_type_checkpoint; DELETE FROM events_per_stream_checkpoint; DELETE FROM events_per_type; DELETE FROM events_per_stream; COMMIT') });
are_exact($plain, 'read models made anew');
under_load($plain, sub { $plain->stop('immediate'); $plain->start });
are_exact($plain, 'without the worker, an immediate shutdown');
$plain->stop;
is(end_of($plain{$_}, 'TERM'), 0, "$_ ends while the server is down") for @names;

# Back to the backends that are silent.
$node->safe_psql('postgres', q{SELECT event_store.append('ev', 'w-1', 'Silence', '{}')});
are_exact($node, 'connections that have died without a word');
kill 'CONT', @silent;

is(end_of($pid{$_}, 'TERM'), 0, "$_ has lived through all that") for @names;

# Another event table under the same name.
@ENV{keys %other} = values %other;
my $checkpoints = join ' UNION ALL ', map { "SELECT position, event_id FROM $consumers{$_}{checkpoint}" } @names;
my $before = $node->safe_psql('postgres', $checkpoints);
$node->safe_psql('postgres', <<'EOT');
DROP TABLE ev;
SELECT event_store.create_event_table('ev');
INSERT INTO ev (stream, type, data) SELECT 's-1', 'Other', '{}' FROM generate_series(1, 10);
EOT
for my $name (@names)
{
	is(end_of(start_consumer($name, 'ev')), 1, "$name stops where its checkpoint is of another history");
	like(slurp_file("$dir/$name.log"), qr/checkpoint .* is not of this event table's history\n(?s:.*)HINT: .*Rebuild/, 'and says why');
}
is($node->safe_psql('postgres', $checkpoints), $before, 'without a change of the checkpoints');

log_is_clean($node, $plain);
$node->stop;
done_testing();
