# The processes that run projections: when they come, who they are, when they
# leave, and what they come through.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

# So that a command that hangs fails.
$ENV{PGOPTIONS} = '-c statement_timeout=100s';

# With debug1 the postmaster logs every process that it starts.
my $node = new_server('projectors', no_extension => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
event_store.max_workers = 12
event_store.max_projectors = 12
max_worker_processes = 40
max_prepared_transactions = 5
autovacuum = off
log_min_messages = debug1
EOT
my @roles = qw(one two three);
$node->safe_psql('postgres', "CREATE ROLE $_ LOGIN") for @roles;

# Of the log, the lines from here on.
my $offset = 0;
sub log_from_here { $offset = -s $node->logfile; return; }
sub logged { my ($pattern) = @_; my @found = slurp_file($node->logfile, $offset) =~ /$pattern/g; return scalar @found; }

sub set { my ($setting, $value) = @_; $node->safe_psql('postgres', "ALTER SYSTEM SET $setting = $value"); return; }
sub reload { $node->safe_psql('postgres', 'SELECT pg_reload_conf()'); return; }

# A database with one event table; each role has a table that its projection fills.
sub make_database
{
	my ($db) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, q{CREATE EXTENSION event_store; SELECT event_store.create_event_table('orders')});
	$node->safe_psql($db, "CREATE TABLE seen_$_ (position bigint PRIMARY KEY); ALTER TABLE seen_$_ OWNER TO $_;"
		  . "GRANT CREATE ON DATABASE $db TO $_; GRANT SELECT ON orders TO $_")
	  for @roles;
	return;
}

sub append { my ($db) = @_; return $node->safe_psql($db, q{SELECT first_position FROM event_store.append('orders', 's-1', 'T', '{}')}); }

sub as { my ($role, $db, $sql) = @_; return $node->safe_psql($db, $sql, extra_params => [ '-U', $role ]); }

sub create
{
	my ($role, $db, $statement) = @_;
	$statement //= "INSERT INTO public.seen_$role SELECT position FROM events";
	as($role, $db, "SELECT event_store.create_projection('p_$role', 'orders', statement => '$statement')");
	return;
}
sub drop { my ($role, $db) = @_; as($role, $db, "SELECT event_store.drop_projection('p_$role')"); return; }

# The projection of a role has seen that event.
sub sees
{
	my ($role, $db, $position, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($db, "SELECT EXISTS (SELECT FROM seen_$role WHERE position = $position)"), $name);
	return;
}

# The projectors of a role in a database, and how many there are of them.
sub projectors_sql { my ($role, $db) = @_; return "SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_store projector' AND usename = '$role' AND datname = '$db'"; }
sub projectors
{
	my ($role, $db, $count, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eventually($node, "SELECT count(*) = $count FROM (@{[ projectors_sql($role, $db) ]}) p", $name);
	return;
}

# Its pid, when it waits for events.
sub idle_projector
{
	my ($role, $db) = @_;
	my $sql = projectors_sql($role, $db) . q{ AND state = 'idle'};

	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($sql) p") or die "no projector of $role in $db";
	return $node->safe_psql('postgres', $sql);
}

make_database('a');
my $first = append('a');
worker($node, 'a');
is(logged(qr/starting background worker process "event_store projector/), 0, 'without projections there is no projector');

# It comes with the first projection.
create('one', 'a');
sees('one', 'a', $first, 'a projection that is created is run, on what there is already');
my $pid = idle_projector('one', 'a');
my $position = append('a');
sees('one', 'a', $position, 'and on what comes later');
is(idle_projector('one', 'a'), $pid, 'by the same process');
eventually($node, <<"EOT", 'which is its owner, and when idle has no transaction, no snapshot and no lock');
SELECT bool_and(usename = 'one' AND state = 'idle' AND query = 'waiting for events' AND xact_start IS NULL AND backend_xid IS NULL AND backend_xmin IS NULL
                AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
  FROM pg_stat_activity a
 WHERE backend_type = 'event_store projector'
EOT

# Where nobody is notified it is woken all the same.
set('event_store.notify', 'off');
set('event_store.notify_interval', "'60s'");
reload();
sees('one', 'a', append('a'), 'with event_store.notify = off and a long notify_interval projections are run') for 1 .. 3;
$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
reload();

# Two owners.
create('two', 'a');
sees('two', 'a', $first, 'the projection of another owner is run');
projectors($_, 'a', 1, "there is one projector for $_") for 'one', 'two';
$position = append('a');
sees($_, 'a', $position, "both run: $_") for 'one', 'two';

# It ends, and comes back.
for my $how ('terminate', 'cancel')
{
	$pid = idle_projector('one', 'a');
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($pid)");
	$position = append('a');
	sees($_, 'a', $position, "pg_${how}_backend(projector) does no harm to $_") for 'one', 'two';
}
$pid = worker($node, 'a');
my $kept = idle_projector('one', 'a');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
sees('one', 'a', append('a'), 'projections are run when the worker has been terminated');
comes($node, 'a', 'which comes back');
is(idle_projector('one', 'a'), $kept, 'and keeps the projector');

# Idle for long, all leave, and come back.
set('event_store.worker_idle_timeout', "'1s'");
reload();
projectors($_, 'a', 0, "when idle for long the projector of $_ leaves") for 'one', 'two';
leaves($node, 'a', 'so does the worker');
$position = append('a');
sees($_, 'a', $position, "an append brings back that of $_") for 'one', 'two';
$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
reload();

# Nothing to run.
drop('two', 'a');
projectors('two', 'a', 0, 'when its last projection is dropped an owner\'s projector leaves');
projectors('one', 'a', 1, 'others stay');

# Settings of the database and of the role do not make it somebody else.
log_from_here();
$node->safe_psql('postgres', $_)
  for 'CREATE ROLE puppet', 'GRANT puppet TO two', 'ALTER DATABASE a SET role = puppet', 'ALTER ROLE two SET default_transaction_read_only = on',
  'ALTER DATABASE a SET exit_on_error = on', q{ALTER ROLE two SET default_transaction_isolation = 'serializable'};
{
	local $ENV{PGOPTIONS} = '-c role=none -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed -c exit_on_error=off';
	$node->safe_psql('a', 'TRUNCATE seen_two');
	create('two', 'a');
	sees('two', 'a', append('a'), 'a projector is its owner whatever the settings say');
	drop('two', 'a');
	is(background_complaints($node, $offset), '', 'without complaints');
}
$node->safe_psql('postgres', $_)
  for 'ALTER DATABASE a RESET ALL', 'ALTER ROLE two RESET ALL';

# A role that may not log in.
SKIP:
{
	skip 'a projector need not be permitted to log in', 5 if $node->pg_version >= 17;
	make_database('nologin');
	create($_, 'nologin') for 'one', 'two';
	sees($_, 'nologin', append('nologin'), "at first $_ may log in") for 'one', 'two';
	log_from_here();
	$node->safe_psql('postgres', 'ALTER ROLE two NOLOGIN; SELECT pg_terminate_backend(' . idle_projector('two', 'nologin') . ', 60000)');
	$node->wait_for_log(qr/WARNING:  event_store does not run the projections of role "two": it is not permitted to log in/, $offset);
	sees('one', 'nologin', append('nologin'), 'the others go on');
	$node->safe_psql('postgres', 'ALTER ROLE two LOGIN');
	sees('two', 'nologin', append('nologin'), 'when it may log in again its projections are run');
	is(logged(qr/WARNING:  event_store does not run/), 1, 'there was one warning');
	$node->safe_psql('postgres', 'DROP DATABASE nologin');
}

# Commands that want the database for themselves: at any moment of a projector's
# life, and in the midst of a batch.
log_from_here();
my @failed;
for my $n (1 .. 6)
{
	make_database('brief');
	append('brief');
	create('one', 'brief');
	idle_projector('one', 'brief') if $n % 3 == 1;
	append('brief') if $n % 3 == 2;
	push @failed, $n if $node->psql('postgres', 'DROP DATABASE brief') != 0;
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS brief WITH (FORCE)') if @failed;
}
is("@failed", '', 'DROP DATABASE works whatever a projector is doing');
is(background_complaints($node, $offset), '', 'without complaints');
make_database('slow');
append('slow');
create('one', 'slow', 'INSERT INTO public.seen_one SELECT position FROM events, pg_sleep(100)');
eventually($node, projectors_sql('one', 'slow') =~ s/SELECT pid/SELECT count(*) = 1/r . q{ AND wait_event = 'PgSleep'}, 'a projector in the midst of a long batch');
is($node->psql('postgres', 'DROP DATABASE slow'), 0, 'is ended by DROP DATABASE');
is($node->psql('postgres', 'ALTER DATABASE a RENAME TO b'), 0, 'ALTER DATABASE ... RENAME works while there are projectors');
sees('one', 'b', append('b'), 'which come back');
is($node->psql('postgres', 'CREATE DATABASE copy TEMPLATE b'), 0, 'CREATE DATABASE ... TEMPLATE works too');
sees('one', 'b', append('b'), 'and they come back');

# The extension goes, and its projections.
$node->safe_psql('copy', 'DROP EXTENSION event_store CASCADE');
projectors('one', 'copy', 0, 'after DROP EXTENSION there is no projector');

# Fewer projectors than owners: they take turns.  One of them has work without end.
for my $case ([ 1, 40 ], [ 12, 5 ])
{
	my ($projectors, $processes) = @$case;

	set('event_store.max_projectors', $projectors);
	set('max_worker_processes', $processes);
	$node->stop;
	log_from_here();
	$node->start;
	if ($projectors == 1)
	{
		make_database($_) for 'c', 'd';
		for my $db ('c', 'd')
		{
			append($db);
			create($_, $db) for @roles;
		}
		drop('one', 'c');
		$node->safe_psql('c', q{TRUNCATE seen_one; SELECT FROM generate_series(1, 300) i, event_store.append('orders', 's-' || i, 'T', '{}')});
		create('one', 'c', 'INSERT INTO public.seen_one SELECT position FROM events, pg_sleep(0.1)');
		eventually($node, projectors_sql('one', 'c') =~ s/SELECT pid/SELECT count(*) = 1/r, 'somebody is busy');
	}
	for my $db ('c', 'd')
	{
		$position = append($db);
		sees($_, $db, $position, "with max_projectors = $projectors and max_worker_processes = $processes: $_ in $db has its turn") for @roles;
	}
	cmp_ok(logged(qr/WARNING:  event_store has no background process/), '<=', $projectors == 1 ? 0 : 1, 'hardly a warning');
}

log_is_clean($node);
$node->stop;
done_testing();
