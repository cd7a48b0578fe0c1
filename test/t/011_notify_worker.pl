# Notifications by the background worker: when they come, what they say, who
# holds them back, how many there are.
use strict;
use warnings;

use EventStoreTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('notify_worker', conf => <<'EOT');
shared_preload_libraries = 'event_store'
max_prepared_transactions = 5
EOT
my $long = 'e' . 'v' x 62;
$node->safe_psql('postgres', <<"EOT");
SELECT event_store.create_event_table('ev');
SELECT event_store.create_event_table('other');
SELECT event_store.create_event_table('$long');
CREATE ROLE writer LOGIN;
GRANT INSERT ON ev TO writer;
EOT

my $append = q{SELECT event_store.append('ev', 's-1', 'T', '{}')};
my $append_other = q{SELECT event_store.append('other', 's-1', 'T', '{}')};

# A session that listens.  Whenever it hears of ev it reads the feed at once; @early
# has the payloads that it could not yet read up to.
my ($listener, %table_of, @heard, @early);
my $marks = 0;

sub listen_anew
{
	%table_of = map { reverse split /\|/ }
	  split /\n/, $node->safe_psql('postgres', 'SELECT event_table, event_store.channel(event_table) FROM event_store.event_tables');
	$listener = $node->background_psql('postgres');
	$listener->query_safe(join '', map { qq{LISTEN "$_";} } keys %table_of, 'marker');
	@heard = ();
	return;
}

# What the listener's query returns; the notifications that come with it go to @heard.
sub ask_listener
{
	my ($query) = @_;
	my $result = $listener->query_safe($query);

	$result =~ s{^Asynchronous notification "([^"]+)"(?: with payload "([^"]*)")? received.*\n?}{
		push @heard, join ' ', $table_of{$1} // $1, $2 // ''; ''}gme;
	return $result =~ s/\s+$//r;
}

sub hear
{
	my $known = @heard;

	ask_listener('SELECT NULL');
	my ($payload) = map { /^ev (\d+)$/ ? $1 : () } reverse @heard[ $known .. $#heard ];
	push @early, $payload
	  if $payload && ask_listener(qq{SELECT checkpoint >= $payload FROM event_store.read_batch('ev', after => $payload - 1)}) ne 't';
	return;
}

# All notifications that have been sent until now and not been told before.
sub heard_so_far
{
	my $marker = 'marker ' . ++$marks;
	my @result;

	$node->safe_psql('postgres', "NOTIFY marker, '$marks'");
	hear() until grep { $_ eq $marker } @heard;
	push @result, shift @heard while $heard[0] ne $marker;
	shift @heard;
	return join ' ', @result;
}

# The same, when a certain one has come.
sub heard
{
	my ($last) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default / 2;

	until (grep { $_ eq $last } @heard or time > $deadline)
	{
		hear();
		usleep(2000);
	}
	return heard_so_far();
}

sub heard_after
{
	my ($sql, $last, @params) = @_;

	$node->safe_psql('postgres', $sql, @params);
	return heard($last);
}

# Waits until the worker has looked again, from beginning to end.
sub wait_until_looked
{
	my ($since, $times) = @_;

	for (1 .. $times // 1)
	{
		my $idle = "FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = 'postgres' AND state = 'idle' AND state_change > '$since'";
		$node->poll_query_until('postgres', "SELECT count(*) = 1 $idle") or return 0;
		$since = $node->safe_psql('postgres', "SELECT state_change $idle") if $_ < ($times // 1);
	}
	return 1;
}

# What is heard of a command that should not be notified: the worker is idle
# before, and looks because of it.
sub heard_of_silent
{
	my ($sql) = @_;
	my ($since) = split /\n/, $node->safe_psql('postgres', "SELECT clock_timestamp(); $sql");

	return 'the worker has not looked' unless wait_until_looked($since);
	return heard_so_far();
}

# A transaction that has drawn the next position and goes on.
sub slow_writer
{
	my $slow = $node->background_psql('postgres', on_error_stop => 0);

	$slow->query_safe(q{BEGIN; SELECT event_store.append('ev', 'slow-' || pg_backend_pid(), 'T', '{}')});
	return $slow;
}

# Somebody holds back the mark: the worker looks twice, and says nothing.
sub heard_while_held
{
	my ($sql) = @_;
	my ($since) = split /\n/, $node->safe_psql('postgres', "$sql; SELECT clock_timestamp()") =~ s/.*\n//sr;

	return 'the worker has not looked' unless wait_until_looked($since, 2);
	return heard_so_far();
}

# Waits until there is a worker that has nothing to do.
sub wait_for_worker
{
	my ($which) = @_;

	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = 'postgres' AND wait_event = 'Extension' AND $which")
	  or die 'there is no worker';
	return;
}

sub notifications
{
	my ($table) = @_;
	return $node->safe_psql('postgres', "SELECT notifications FROM event_store.feeds WHERE event_table = '$table'::regclass");
}

sub newest_checkpoint
{
	return $node->safe_psql('postgres', q{SELECT checkpoint FROM event_store.read_batch('ev', max_count => 100000)});
}

listen_anew();

# What is notified.
is(heard_after($append, 'ev 1'), 'ev 1', 'an append is notified, with the newest checkpoint');
is(notifications('ev'), 1, 'the view of feeds counts it');
is(heard_after(q{INSERT INTO ev (stream, type, data) SELECT 's-2', 'T', '{}' FROM generate_series(1, 3)}, 'ev 4'), 'ev 4', 'a plain INSERT');
is(heard_after("COPY ev (stream, type, data) FROM STDIN;\ns-3\tT\t{}\ns-3\tT\t{}\n\\.\n", 'ev 6'), 'ev 6', 'COPY');
is(heard_after("BEGIN; $append; $append; $append; COMMIT", 'ev 9'), 'ev 9', 'a transaction of several appends, once');
is(heard_after("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM ev; $append; COMMIT", 'ev 10'), 'ev 10', 'REPEATABLE READ');
is(heard_after("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM ev; $append; COMMIT", 'ev 11'), 'ev 11', 'SERIALIZABLE');
is(heard_after($append, 'ev 12', extra_params => [ '-U', 'writer' ]), 'ev 12', 'a role that may only append');
is(heard_after("DO \$\$ BEGIN FOR i IN 1 .. 3 LOOP PERFORM event_store.append('ev', 's-1', 'T', '{}'); COMMIT; END LOOP; END \$\$", 'ev 15') =~ s/ev 1[34] //gr, 'ev 15', 'commits within a DO block');
is(heard_after("BEGIN; $append; COMMIT AND CHAIN; SELECT 1; ROLLBACK", 'ev 16'), 'ev 16', 'COMMIT AND CHAIN');
is(heard_after("BEGIN; SAVEPOINT s; $append; ROLLBACK TO s; $append; COMMIT", 'ev 18'), 'ev 18', 'an append that a savepoint has undone does not count');

# What is not.
is(heard_of_silent("BEGIN; $append; ROLLBACK"), '', 'a rolled-back append is not notified');
is(heard_of_silent("BEGIN; SAVEPOINT s; $append; ROLLBACK TO s; COMMIT"), '', 'nor is one that a savepoint has undone');
is(heard_of_silent("BEGIN; $append; SELECT 1; PREPARE TRANSACTION 'p'"), '', 'nor a prepared one: PREPARE TRANSACTION works');
is(heard_of_silent("ROLLBACK PREPARED 'p'"), '', 'nor ROLLBACK PREPARED');
my $before = notifications('ev');
is(heard_after($append_other, "other $_"), "other $_", 'another table is notified alone, with its own checkpoint') for 1 .. 3;
is(notifications('ev'), $before, 'meanwhile this one is not notified again');
is(heard_after("BEGIN; $append; $append_other; $append; COMMIT", 'ev 23') =~ /^(?=.*\bother 4\b)(?:other 4 ev 23|ev 23 other 4)$/, 1, 'two tables in one transaction: one notification each');

# With nothing to do it does not look: for a while, in which others do something.
{
	my ($rested, $tries) = (0, 0);
	do
	{
		my $last_look = q{SELECT state_change FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = 'postgres'};
		my $before = $node->safe_psql('postgres', $last_look);
		$node->safe_psql('postgres', 'SELECT count(*) FROM ev') for 1 .. 5;
		$rested = $node->safe_psql('postgres', $last_look) eq $before;
	} until ($rested || $tries++ > 20);
	ok($rested, 'a worker with nothing to do rests');
}

# A writer with a lower position that does not end holds it back.
for my $how ('COMMIT', 'ROLLBACK', 'a backend that is terminated')
{
	my $slow = slow_writer();
	my $position = $node->safe_psql('postgres', q{SELECT event_store.last_position('ev')}) + 2;

	is(heard_while_held($append), '', "an append above an unfinished one is not notified: $how");
	if ($how =~ /^[A-Z]+$/)
	{
		$slow->query_safe($how);
		$slow->quit;
	}
	else
	{
		$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM event_store.mark_holders');
		$slow->{run}->kill_kill;
	}
	is(heard("ev $position"), "ev $position", "when that has ended it is: $how");
}
for my $how ('COMMIT', 'ROLLBACK')
{
	$node->safe_psql('postgres', qq{BEGIN; SELECT event_store.append('ev', 'p-1', 'T', '{}'); PREPARE TRANSACTION 'p'});
	my $position = $node->safe_psql('postgres', q{SELECT event_store.last_position('ev')}) + 2;

	is(heard_while_held($append), '', "an append above a prepared one is not notified: $how");
	is(heard_after("$how PREPARED 'p'", "ev $position"), "ev $position", "when another session ends that it is: $how PREPARED");
}

# Who may hear what.
{
	my $alone = $node->background_psql('postgres');
	my ($channel) = grep { $table_of{$_} eq 'ev' } keys %table_of;

	$alone->query_safe("LISTEN $channel; LISTEN marker");
	heard_after($append_other, 'other 5');
	like($alone->query_safe('SELECT NULL'), qr/\A\s*Asynchronous notification "marker"[^\n]*\z/, 'who listens to one table hears nothing of another');
	$alone->quit;
}

# Names.
is(heard_after(qq{SELECT event_store.append('$long', 's-1', 'T', '{}')}, "$long 1"), "$long 1", 'a table with a name of 63 bytes');
is(heard_after(qq{ALTER TABLE "$long" RENAME TO short; SELECT event_store.append('short', 's-1', 'T', '{}')}, "$long 2"), "$long 2", 'after a rename it is the same channel');
is(heard_after(q{CREATE SCHEMA shop; ALTER TABLE short SET SCHEMA shop; SELECT event_store.append('shop.short', 's-1', 'T', '{}')}, "$long 3"), "$long 3", 'in another schema too');
is(join(' ', grep { $table_of{$_} eq $long } keys %table_of), $node->safe_psql('postgres', q{SELECT event_store.channel('shop.short')}), 'as channel() says');
$node->safe_psql('postgres', q{DROP TABLE other; SELECT event_store.create_event_table('other')});
$listener->quit;
listen_anew();
is(heard_after($append_other, 'other 1'), 'other 1', 'a table that is dropped and created again begins anew');
$node->safe_psql('postgres', q{BEGIN; DROP TABLE shop.short; SELECT event_store.create_event_table('shop.short'); SELECT event_store.append('shop.short', 's-1', 'T', '{}'); COMMIT});
is($node->poll_query_until('postgres', q{SELECT notifications = 1 FROM event_store.feeds WHERE event_table = 'shop.short'::regclass}), 1, 'also in one transaction, with an append');
$listener->quit;
listen_anew();

# Settings.  Of a session: the worker goes by what holds for the database.
{
	my $slow = slow_writer();
	my $position = $node->safe_psql('postgres', q{SELECT event_store.last_position('ev')}) + 2;

	is(heard_after("SET event_store.notify = transaction; $append", "ev $position"), "ev $position", 'notify = transaction in a session: it notifies at its commit, also of what cannot be read yet');
	is(join(' ', splice @early), $position, 'which this listener notices');
	$slow->query_safe('COMMIT');
	$slow->quit;
	is(heard("ev $position"), "ev $position", 'and the worker when it can be read');
	$position++;
	is(heard_after("SET event_store.notify = off; $append", "ev $position"), "ev $position", 'notify = off in a session: the worker notifies as before');
}

# Of the database.  A worker that starts takes it over.
sub restart_worker
{
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = 'postgres'});

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_for_worker("pid <> $pid");
	return;
}
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET event_store.notify = off');
restart_worker();
is(heard_of_silent($append), '', 'notify = off for the database: nobody notifies');
my $position = newest_checkpoint();
is($node->safe_psql('postgres', qq{SELECT event_store.wait_for_events('ev', $position - 1)}), $position, 'wait_for_events() works all the same');
$position++;
is(heard_after("SET event_store.notify = auto; $append", "ev $position"), "ev $position", 'auto in a session, with a worker that does not: the session notifies');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET event_store.notify');
$position++;
is(heard_after($append, "ev $position"), "ev $position", 'back to the default, while the worker has the old setting: the session notifies');
restart_worker();
heard_so_far();
$position++;
is(heard_after($append, "ev $position"), "ev $position", 'with a new worker: once');
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET event_store.notify = transaction');
restart_worker();
$before = notifications('ev');
$position++;
is(heard_after($append, "ev $position"), "ev $position", 'notify = transaction for the database: once');
is(notifications('ev'), $before, 'not by the worker');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET event_store.notify');
restart_worker();
heard("ev $position");

# Of the server, by reload: sessions and the worker change at different moments.
$node->safe_psql('postgres', q{ALTER SYSTEM SET event_store.notify = off; SELECT pg_reload_conf()});
my ($silent, $tries) = ('', 0);
do
{
	$silent = heard_of_silent($append);
	$position++;
} while ($silent ne '' && $tries++ < 50);
is($silent, '', 'notify = off for the server: nobody notifies');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET event_store.notify; SELECT pg_reload_conf()});
is(heard("ev $position"), "ev $position", 'back to the default: what was withheld is notified without a new append');
is($node->poll_query_until('postgres', q{SELECT current_setting('event_store.notify') = 'auto'}), 1, 'and new sessions have it');

# Coalescing; also while somebody waits, for whom the worker looks more often.
$node->safe_psql('postgres', q{ALTER SYSTEM SET event_store.notify_interval = '500ms'; SELECT pg_reload_conf()});
my $waiter = $node->background_psql('postgres');
for my $run ('with nobody who waits', 'with somebody who waits')
{
	if ($run =~ /somebody/)
	{
		$waiter->query_until(qr/^/, "SELECT event_store.wait_for_events('ev', 1000000, '60 s');\n");
		$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^SELECT event_store.wait_for_events' AND wait_event = 'Extension'});
	}
	my $sent = 'SELECT notifications, extract(epoch FROM last_notified_at), extract(epoch FROM clock_timestamp()) FROM event_store.feeds WHERE event_table = ' . q{'ev'::regclass};
	my ($count, $first, $start) = split /\|/, $node->safe_psql('postgres', $sent);
	$node->safe_psql('postgres', join ';', ($append) x 50);
	$position += 50;
	my @payloads = heard("ev $position") =~ /\d+/g;
	my ($count_after, $last, $end) = split /\|/, $node->safe_psql('postgres', $sent);

	is($payloads[-1], $position, "50 appends: the last notification has the final checkpoint, $run");
	cmp_ok(@payloads, '<=', 2 + ($end - $start) / 0.5, 'there is at most one per interval');
	is($count_after - $count, @payloads, 'so the view of feeds says');

	# The stored times are those after the commits, which may take long.
	$node->safe_psql('postgres', $append);
	$position++;
	heard("ev $position");
	my (undef, $next) = split /\|/, $node->safe_psql('postgres', $sent);
	cmp_ok($next - $last, '>', 0.25, 'and the next one comes after an interval');
}
$waiter->{run}->kill_kill;
$node->safe_psql('postgres', q{ALTER SYSTEM RESET event_store.notify_interval; SELECT pg_reload_conf()});

# Load: four clients, some slow, one transaction in five rolled back.
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	open my $script, '>', "$dir/load.sql" or die $!;
	print $script <<'EOT';
\set end random(1, 5)
\set pause random(0, 3)
\set stream random(1, 1000)
BEGIN;
SELECT event_store.append('ev', 'load-' || :stream, 'T', '{}');
SELECT pg_sleep(0.002 * :pause);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
EOT
	close $script;
	heard_so_far();
	$before = notifications('ev');
	my ($stdout, $stderr);
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-j', 2, '-t', 150, '-f', "$dir/load.sql", $node->connstr('postgres') ],
		'>', \$stdout, '2>', \$stderr, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	while ($load->pumpable)
	{
		$load->pump_nb;
		hear();
	}
	ok($load->finish, 'four clients have appended');
	my $final = newest_checkpoint();
	my @payloads = heard("ev $final") =~ /ev (\d+)/g;

	is($payloads[-1], $final, 'under load the last notification has the final checkpoint');
	is(join(' ', grep { $payloads[$_] <= $payloads[ $_ - 1 ] } 1 .. $#payloads), '', 'the payloads rise strictly');
	is(notifications('ev') - $before, scalar(@payloads), 'none was lost, none sent twice');
	cmp_ok(@payloads, '>', 5, 'there were several');
}
is("@early", '', 'what was notified could be read at that moment, always');

# A prepared transaction over a restart, and over a crash.
for my $restart ('a restart', 'kill -9')
{
	my $how = $restart =~ /kill/ ? 'ROLLBACK' : 'COMMIT';

	$node->safe_psql('postgres', q{BEGIN; SELECT event_store.append('ev', 'p-1', 'T', '{}'); PREPARE TRANSACTION 'p'});
	my $old = newest_checkpoint();
	my ($final) = $node->safe_psql('postgres', "$append; SELECT event_store.last_position('ev')") =~ /(\d+)$/;
	if ($how eq 'COMMIT')
	{
		$listener->quit;
		$node->restart;
	}
	else
	{
		kill 'KILL', $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_store worker' AND datname = 'postgres'});
		$listener->{run}->kill_kill;
	}
	comes_back($node);
	wait_for_worker('true');
	listen_anew();
	unlike(heard_while_held('SELECT 1'), qr/ev $final|not looked/, "after $restart a prepared transaction still holds back");
	is(newest_checkpoint(), $old, 'the feed too');
	is(heard_after("$how PREPARED 'p'", "ev $final") =~ s/^.* (?=ev \d+$)//r, "ev $final", "$how PREPARED has the final checkpoint notified after $restart");
}

$listener->quit;
log_is_clean($node);
$node->stop;
done_testing();
