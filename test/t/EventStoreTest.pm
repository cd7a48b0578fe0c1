# What the TAP tests of event_store have in common.
package EventStoreTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_server log_is_clean refused eventually workers_sql worker comes leaves);

# A running server.  allows_streaming as for init(); conf are further lines of
# postgresql.conf; with no_extension the database postgres is left empty.
sub new_server
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

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
# of its servers.  XX is the class of internal errors.
sub log_is_clean
{
	my (@nodes) = @_;

	for my $node (@nodes)
	{
		my @bad = grep {
			/PANIC:|TRAP:| XX[0-9A-Z]{3} |WARNING: .*(?:leak|still referenced)|terminated by signal (?!9\b)/
		} split /\n/, slurp_file($node->logfile);
		my $count = @bad;
		splice @bad, 3;
		is(join("\n", $count, @bad), '0', 'the log of ' . $node->name . ' is clean');
	}
	return;
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

1;
