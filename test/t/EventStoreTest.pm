# What the TAP tests of event_store have in common.
package EventStoreTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(new_server log_is_clean background_complaints refused eventually workers_sql worker comes leaves
  kill_9 comes_back writers finish_writers caught_up is_fold projection_is);

# A running server.  allows_streaming as for init(); conf are further lines of
# postgresql.conf; with no_extension the database postgres is left empty; with
# hooks it has the build for tests (TEST_HOOKS=1).
sub new_server
{
	my ($name, %params) = @_;
	my @install = ();

	if ($params{hooks})
	{
		@install = (install_path => $ENV{EVENT_STORE_HOOKS} || die 'no build for tests: run this by test/run');
	}
	my $node = PostgreSQL::Test::Cluster->new($name, @install);

	$node->init(
		extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ],
		allows_streaming => $params{allows_streaming});
	$node->append_conf('postgresql.conf', <<EOT);
log_line_prefix = '%m [%p] %e %q%u\@%d '
log_statement = none
restart_after_crash = on
timezone = 'UTC'
EOT
	$node->append_conf('postgresql.conf', $params{conf}) if $params{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION event_store')
	  unless $params{no_extension};
	return $node;
}

# No test may leave an internal error, a failed assertion or a leak in the log
# of its servers.  XX is the class of internal errors, a "runtime error" one that
# UBSan has found.
sub log_is_clean
{
	my (@nodes) = @_;

	for my $node (@nodes)
	{
		my @bad = grep {
			/PANIC:|TRAP:|runtime error:| XX[0-9A-Z]{3} |WARNING: .*(?:leak|still referenced)|terminated by signal (?!9\b)/
		} split /\n/, slurp_file($node->logfile);
		my $count = @bad;
		splice @bad, 3;
		is(join("\n", $count, @bad), '0', 'the log of ' . $node->name . ' is clean');
	}
	return;
}

# What background processes complain of, from that place in the log on; but not
# of being ended.
sub background_complaints
{
	my ($node, $offset) = @_;

	return join "\n", grep { /\[\d+\] (?!57P0)\w{5} (?:WARNING|ERROR|FATAL|PANIC):/ } split /\n/, slurp_file($node->logfile, $offset // 0);
}

# The statement fails with that SQLSTATE and a message, DETAIL or HINT like
# that.
sub refused
{
	my ($node, $sql, $sqlstate, $pattern, $name) = @_;
	my ($result, $stdout, $stderr) = $node->psql('postgres', $sql,
		on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($stderr, qr/ERROR:  \Q$sqlstate\E: (?s:.*)$pattern/, $name);
	return;
}

# Waits until the query returns t.
sub eventually
{
	my ($node, $query, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('postgres', $query), $name);
	return;
}

# The event_store worker of a database: how to ask for its pid.
sub workers_sql
{
	my ($db) = @_;
	return "SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = '$db'";
}

# Its pid, when it has found its event tables.
sub worker
{
	my ($node, $db) = @_;
	my $ready = workers_sql($db) . q{ AND state = 'idle'};

	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($ready) w") or die "no worker in $db";
	return $node->safe_psql('postgres', $ready);
}

# Waits until there is one, or none.
sub comes
{
	my ($node, $db, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually($node, 'SELECT count(*) = 1 FROM (' . workers_sql($db) . ') w', $name);
	return;
}

sub leaves
{
	my ($node, $db, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually($node, 'SELECT count(*) = 0 FROM (' . workers_sql($db) . ') w', $name);
	return;
}

# kill -9 of a process of the server, which restarts all of them.
sub kill_9
{
	my ($node, $pid) = @_;
	my $offset = -s $node->logfile;

	kill 'KILL', $pid;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
	comes_back($node);
	return;
}

# Waits until the server takes connections again.  Not by a query: a psql that is refused does not
# read what it is sent, which IPC::Run cannot bear.
sub comes_back
{
	my ($node) = @_;

	for (my $tries = 0; system('pg_isready', '-q', '-d', $node->connstr('postgres')) != 0; $tries++)
	{
		die 'the server is gone' if $tries > 100 * $PostgreSQL::Test::Utils::timeout_default;
		usleep(10_000);
	}
	return;
}

# Clients that append up to 1,000 events a second, in batches of five whose data are a number, to 40 streams,
# until they are killed or the table enough is made.
sub writers
{
	my ($node, $count, $event_table, $db) = @_;
	my $script = <<"EOT";
DO \$\$
DECLARE
	event_table regclass := '$event_table';
BEGIN
	FOR n IN 1 .. 1000000 LOOP
		EXIT WHEN to_regclass('enough') IS NOT NULL;
		PERFORM event_store.append_batch(event_table, 's-' || (random() * 39)::int, array_fill('T'::text, '{5}'), array_fill(to_jsonb(n), '{5}'));
		COMMIT;
		PERFORM pg_sleep(0.005);
	END LOOP;
END \$\$;
EOT

	return map { IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($db // 'postgres'), '-c', $script ], '>', '/dev/null', '2>', '/dev/null') } 1 .. $count;
}

# Ends them; returns how many have failed.
sub finish_writers
{
	my ($node, $db, @writers) = @_;

	$node->safe_psql($db, 'CREATE TABLE enough ()');
	my $failed = grep { !$_->finish } @writers;
	$node->safe_psql($db, 'DROP TABLE enough');
	return $failed;
}

# A projection has handled everything that can be read now.
sub caught_up
{
	my ($node, $projection, $name, $db) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql($db // 'postgres', "SELECT event_store.wait_for_projection('$projection', timeout => '60 s')"), 't', $name);
	return;
}

# Two queries have the same rows.
sub is_fold
{
	my ($node, $model, $fold, $name, $db) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql($db // 'postgres', "SELECT (SELECT count(*) FROM (($model) EXCEPT ALL ($fold)) a), (SELECT count(*) FROM (($fold) EXCEPT ALL ($model)) b)"),
		'0|0', $name);
	return;
}

# Waits until a projection is as the condition on event_store.projections says.
sub projection_is
{
	my ($node, $projection, $condition, $name, $db) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($db // 'postgres', "SELECT $condition FROM event_store.projections WHERE name = '$projection'"), $name);
	return;
}

1;
