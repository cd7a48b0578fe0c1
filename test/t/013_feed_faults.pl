# Faults under load: whatever is killed, every listener reaches the final
# checkpoint without a new append, and has seen every event once, in order.
use strict;
use warnings;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('feed_faults', allows_streaming => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
max_connections = 40
shared_buffers = 16MB
EOT
my $dir = PostgreSQL::Test::Utils::tempdir;
my $patience = $PostgreSQL::Test::Utils::timeout_default / 2;

# What a consumer does: LISTEN; then catch up from its checkpoint; then wait for a
# notification, and catch up; from the beginning if the connection is lost.
{
	package Consumer;

	sub new
	{
		return bless { checkpoint => 0, event_id => undef, seen => [], connections => 0 }, shift;
	}

	# One turn; true if it had something to read.  Asks whether there is a
	# notification, as psql needs to; reads only if there is.
	sub turn
	{
		my ($self) = @_;
		my $news = eval {
			my $connected = defined $self->{psql};
			unless ($connected)
			{
				$self->{psql} = $node->background_psql('postgres');
				$self->ask(q{SELECT format('LISTEN %I', event_store.channel('ev')) \gexec});
				$self->{connections}++;
			}
			my $news = $self->ask('SELECT NULL') =~ /^Asynchronous notification/m || delete $self->{notified} || !$connected;
			$self->catch_up if $news;
			$news;
		};
		$self->hang_up if $@;
		return $news;
	}

	sub ask
	{
		my ($self, $query) = @_;
		my $result = $self->{psql}->query_safe($query);

		$self->{notified} = 1 if $query =~ /read_batch/ && $result =~ s/^Asynchronous notification.*\n?//mg;
		return $result;
	}

	sub catch_up
	{
		my ($self) = @_;

		for (;;)
		{
			my $id = $self->{event_id} ? ", after_event_id => '$self->{event_id}'" : '';
			my ($checkpoint, $event_id, $positions) = split /\|/,
			  $self->ask(qq{SELECT checkpoint, checkpoint_event_id, (SELECT string_agg(e->>'position', ' ' ORDER BY i) FROM jsonb_array_elements(events) WITH ORDINALITY AS x(e, i)) FROM event_store.read_batch('ev', after => $self->{checkpoint}, max_count => 500$id)}) =~ s/\s+\z//r;
			return if $checkpoint == $self->{checkpoint};
			push @{ $self->{seen} }, split / /, $positions // '';
			@$self{qw(checkpoint event_id)} = ($checkpoint, $event_id);
		}
	}

	sub hang_up
	{
		my ($self) = @_;

		$self->{psql}{run}->kill_kill if $self->{psql};
		delete $self->{psql};
		return;
	}
}
my @consumers = map { Consumer->new } 1 .. 2;

# Writers, who append one to three events at a time, and roll back every fifth time.
{
	open my $script, '>', "$dir/load.sql" or die $!;
	print $script <<'EOT';
\set end random(1, 5)
\set stream random(1, 1000)
\set count random(1, 3)
BEGIN;
SELECT event_store.append_batch('ev', 'load-' || :stream, array_fill('T'::text, ARRAY[:count]), array_fill('{}'::jsonb, ARRAY[:count]));
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
EOT
	close $script;
}

sub start_writers
{
	my (@how_long) = @_;
	my $writers = { out => '', err => '' };

	$writers->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-j', 2, @how_long, '-f', "$dir/load.sql", $node->connstr('postgres') . ' application_name=writer' ],
		'>', \$writers->{out}, '2>', \$writers->{err}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $writers;
}

# The consumers go on until something holds.
sub consume_until
{
	my ($done, @who) = @_;
	my $deadline = time + $patience;

	@who = @consumers unless @who;
	until ($done->())
	{
		return 0 if time > $deadline;
		usleep(2000) unless grep { $_->turn } @who;
	}
	return 1;
}

sub newest_checkpoint
{
	return $node->safe_psql('postgres', q{SELECT coalesce(max(position), 0) FROM event_store.read_all('ev', direction => 'backward', max_count => 1)});
}

# All writers are gone.  Who is connected must be told: no consumer reads of its own accord.
sub check_consumers
{
	my ($name, @who) = @_;
	my $final = newest_checkpoint();
	my $table = $node->safe_psql('postgres', q{SELECT string_agg(position::text, ' ' ORDER BY position) FROM ev});

	@who = @consumers unless @who;
	ok(consume_until(sub { !grep { $_->{checkpoint} < $final || !$_->{psql} } @who }, @who), "$name: every listener reaches the final checkpoint");
	is(scalar(grep { join(' ', @{ $_->{seen} }) ne $table } @who), 0, "$name: it has seen every event once, in order");
	return;
}

# Waits until the consumers have seen something of the present load.
sub see_load
{
	my @before = map { $_->{checkpoint} } @consumers;

	return consume_until(sub { !grep { $consumers[$_]{checkpoint} < $before[$_] + 100 } 0 .. $#consumers });
}

# What wait_for_events() returns to somebody who is asleep when an append comes.
sub wait_for_one
{
	my $end = newest_checkpoint();
	my $out = '';
	my $waiter = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SET statement_timeout = '50 s'; SELECT event_store.wait_for_events('ev', $end, '60 s')" ],
		'>', \$out, '2>&1', IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^SET.*wait_for_events' AND wait_event = 'Extension'});
	$node->safe_psql('postgres', q{SELECT event_store.append('ev', 'waited', 'T', '{}')});
	$waiter->finish;
	return $out =~ s/\s+$//r;
}

sub worker_pid
{
	return $node->safe_psql('postgres', q{SELECT coalesce(min(pid), 0) FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = current_database()});
}

$node->safe_psql('postgres', q{SELECT event_store.create_event_table('ev')});

# Processes that end while the server goes on: nobody is cut off.
for my $type ('worker', 'launcher')
{
	my $writers = start_writers('-T', 300);

	ok(see_load(), "$type: there is load");
	my $connections = $consumers[0]{connections};
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'event_store $type' AND coalesce(datname = current_database(), true)");
	see_load() if $type eq 'launcher';
	$writers->{run}->kill_kill;
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'writer'});
	check_consumers("the $type is terminated");
	is($consumers[0]{connections}, $connections, 'on the same connection');
}

# Processes that are killed: the server ends all sessions, and recovers.
my %kill = (
	'kill -9 of the worker' => sub { kill 'KILL', worker_pid() },
	'kill -9 of a backend in mid-append' => sub
	{
		kill 'KILL', $node->safe_psql('postgres', q{SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'writer' AND backend_type = 'client backend'});
	},
	'immediate shutdown' => sub { $node->stop('immediate'); $node->start },
	'kill -9 of everything' => sub
	{
		my @pids = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
		my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
		my $deadline = time + $patience;

		$node->kill9;
		kill 'KILL', @pids;
		usleep(10_000) while kill(0, $postmaster, @pids) && time < $deadline;
		$node->start;
	});
for my $fault (sort keys %kill)
{
	my $writers = start_writers('-T', 300);

	ok(see_load(), "$fault: there is load");
	my $connections = $consumers[0]{connections};
	my $log = -s $node->logfile;
	$kill{$fault}->();
	# pgbench gives up when all its connections are lost.
	consume_until(sub { $writers->{run}->pump_nb; !$writers->{run}->pumpable });
	eval { $writers->{run}->finish };
	like($writers->{err}, qr/aborted/, 'the writers were cut off');
	$node->wait_for_log(qr/database system is ready to accept connections/, $log);
	check_consumers($fault);
	cmp_ok($consumers[0]{connections}, '>', $connections, 'over a new connection');
}

# Listeners that stand still while much happens: the client, or its backend.
{
	my ($client, $backend) = @consumers;
	my $pid = $backend->ask('SELECT pg_backend_pid()');

	$client->{psql}{run}->signal('STOP');
	kill 'STOP', $pid;
	my $before = newest_checkpoint();
	my $writers = start_writers('-t', 500);
	ok($writers->{run}->finish, 'appends go on while listeners are stopped');
	cmp_ok(newest_checkpoint() - $before, '>', 2000, 'thousands of them');
	my $third = Consumer->new;
	check_consumers('another one meanwhile', $third);
	$third->hang_up;
	kill 'CONT', $pid;
	$client->{psql}{run}->signal('CONT');
	check_consumers('after SIGCONT');
}

# A NOTIFY of the worker's that fails: some session hangs in its commit, for want
# of a synchronous standby, and so holds the lock that all commits with a NOTIFY need.
{
	my $fails = qr/\n\S+ \S+ \S+ \[\d+\] 55P03 .*ERROR:  canceling statement due to lock timeout/;
	my $count_failures = sub { my $n = () = slurp_file($node->logfile) =~ /$fails/g; $n };

	$node->safe_psql('postgres', $_)
	  for 'CREATE TABLE plain (n int)', 'ALTER SYSTEM SET synchronous_commit = local', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'}, 'SELECT pg_reload_conf()';
	$node->poll_query_until('postgres', q{SELECT current_setting('synchronous_commit') = 'local' AND current_setting('synchronous_standby_names') = 'nobody'});
	my $blocker = $node->background_psql('postgres');
	my $pid = $blocker->query_safe('SELECT pg_backend_pid()');
	$blocker->query_until(qr/^/, "SET synchronous_commit = on; BEGIN; NOTIFY nobody; INSERT INTO plain VALUES (1); COMMIT;\n");
	eventually($node, "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid", 'a session holds the lock for notifications');

	my $notifications = $node->safe_psql('postgres', q{SELECT notifications FROM event_store.feeds WHERE event_table = 'ev'::regclass});
	my $writers = start_writers('-t', 50);
	ok($writers->{run}->finish, 'appends go on while notifications fail');
	eventually($node, q{SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = current_database()}, 'the worker goes on');
	# The second time after two failures.
	is(wait_for_one(), newest_checkpoint(), 'wait_for_events() works meanwhile');
	ok(consume_until(sub { $count_failures->() >= 2 }), 'a notification fails, and again');
	is(wait_for_one(), newest_checkpoint(), 'wait_for_events() still works');
	is($node->safe_psql('postgres', "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid"), 'SyncRep', 'it still holds it');
	is($node->safe_psql('postgres', q{SELECT notifications FROM event_store.feeds WHERE event_table = 'ev'::regclass}), $notifications, 'no notification was sent');

	# Between the ends of two failures lie a second of waiting for the lock, and
	# one at least for a better moment.
	my @times = map { (split /[ :]/)[3] + 60 * (split /[ :]/)[2] } slurp_file($node->logfile) =~ /$fails/g;
	my $gap = $times[1] - $times[0];
	cmp_ok($gap < 0 ? $gap + 3600 : $gap, '>', 1.5, 'the worker does not try again at once');
	cmp_ok($count_failures->(), '<', 8, 'and writes little to the log');

	# One failure is all tables' failure.
	$node->safe_psql('postgres', join ';', map { "SELECT event_store.create_event_table('more$_'); SELECT event_store.append('more$_', 's-1', 'T', '{}')" } 1 .. 10);
	for my $n (1, 2)
	{
		my $failures = $count_failures->();
		is(wait_for_one(), newest_checkpoint(), "however many tables there are to tell of, wait_for_events() works, $n");
		cmp_ok($count_failures->() - $failures, '<=', 2, "it does not wait for the failures of each, $n");
	}

	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	check_consumers('after failed notifications');
	cmp_ok($node->safe_psql('postgres', q{SELECT notifications FROM event_store.feeds WHERE event_table = 'ev'::regclass}), '>', $notifications, 'by a notification');
	$blocker->{run}->kill_kill;
	$node->safe_psql('postgres', $_) for 'ALTER SYSTEM RESET ALL', 'SELECT pg_reload_conf()';
}

$_->hang_up for @consumers;
log_is_clean($node);
$node->stop;
done_testing();
