# What has been acknowledged survives crashes, nothing is there by half, and no
# event hides behind a checkpoint.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

# The WAL writer does not flush by itself what nobody forces.
my $node = new_server('crash', conf => <<'EOT');
max_prepared_transactions = 5
wal_writer_delay = 10s
checkpoint_timeout = 1h
autovacuum = off
EOT

sub crash
{
	$node->stop('immediate');
	$node->start;
	return;
}

# Prints a checkpoint as arguments of the feeds.
my $checkpoint_sql = q{SELECT format('after => %s, after_event_id => %L', checkpoint, checkpoint_event_id) FROM event_store.read_batch('ev', max_count => 100000)};

$node->safe_psql('postgres', q{SELECT event_store.create_event_table('ev'); CREATE TABLE plain (n int)});

# kill -9 of a backend in the middle of its appends: four clients append three
# events at a time, and write down what is acknowledged.
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my @runs;

	open my $script, '>', "$dir/append.sql" or die $!;
	print $script q{SELECT first_version FROM event_store.append_batch('ev', 'kill-' || pg_backend_pid(), ARRAY['A', 'B', 'C'], ARRAY['1', '2', '3']::jsonb[]);}, "\n"
	  for 1 .. 100000;
	close $script;
	for my $n (1 .. 4)
	{
		push @runs, IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', "$dir/append.sql" ],
			'>', "$dir/acknowledged$n", '2>', "$dir/errors$n");
	}
	eventually($node, q{SELECT count(*) > 300 AND count(DISTINCT stream) = 4 FROM ev}, 'four clients append');
	my $victim = $node->safe_psql('postgres', q{SELECT min(pid) FROM pg_stat_activity WHERE query LIKE '%append_batch%' AND pid <> pg_backend_pid()});
	kill 'KILL', $victim;
	$_->finish for @runs;
	comes_back($node);

	my $acknowledged = 0;
	for my $n (1 .. 4)
	{
		$acknowledged += () = slurp_file("$dir/acknowledged$n") =~ /^\d+$/mg;
	}
	my ($batches, $whole, $gapless) = split /\|/, $node->safe_psql('postgres', q{
		SELECT sum(n) / 3, bool_and(n % 3 = 0), bool_and(least = 1 AND greatest = n)
		  FROM (SELECT count(*) AS n, min(version) AS least, max(version) AS greatest FROM ev GROUP BY stream) s});
	cmp_ok($acknowledged, '>', 50, 'appends had been acknowledged when a backend was killed');
	cmp_ok($batches, '>=', $acknowledged, 'all that were acknowledged are there');
	cmp_ok($batches, '<=', $acknowledged + 4, 'and of each client at most the one that was under way');
	is($whole, 't', 'no batch is there by half');
	is($gapless, 't', 'the versions have no gap');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.read_all('ev', max_count => 1000000)}), 3 * $batches,
		'the feed has them all: who was killed does not hold the mark');
}

# Immediate shutdown after an append that has failed.  So many positions are
# drawn that the sequence writes WAL of its own, which nobody flushes: after the
# crash they are drawn again.  The last event is refused before anything goes to
# the table, since a full page of WAL would wake the WAL writer.  That may wake
# up at just that moment all the same; so try again.
$node->safe_psql('postgres', q{ALTER TABLE ev ADD CHECK (type <> 'Refused')});
for my $try (1 .. 5)
{
	$node->safe_psql('postgres', q{SELECT event_store.append('ev', 'c-1', 'Before', '{}')});
	my $checkpoint = $node->safe_psql('postgres', $checkpoint_sql);
	refused($node, q{SELECT event_store.append_batch('ev', 'c-1', array_fill('Lost'::text, '{40}') || '{Refused}', array_fill('1'::jsonb, '{41}'))}, '23514', '',
		'an append that has drawn many positions fails');
	my $mark = $node->safe_psql('postgres', q{SELECT event_store.high_water_mark('ev')});
	is($node->safe_psql('postgres', $checkpoint_sql), $checkpoint, 'its positions are no checkpoint');
	is($node->safe_psql('postgres', qq{SELECT format('after => %s, after_event_id => %L', checkpoint, checkpoint_event_id) FROM event_store.read_batch('ev', $checkpoint, types => '{None}')}),
		$checkpoint, 'nor for a reader whose filter lets nothing through');
	crash();
	my $position = $node->safe_psql('postgres', q{SELECT first_position FROM event_store.append('ev', 'c-1', 'After', '{}')});
	is($node->safe_psql('postgres', "SELECT position, type FROM event_store.read_all('ev', $checkpoint)"), "$position|After",
		'an event from after the crash does not hide behind the checkpoint');
	next if $position > $mark && $try < 5;
	cmp_ok($position, '<=', $mark, 'its position was drawn again: the mark had covered it');
	last;
}

# synchronous_commit = off: appends are flushed all the same.
{
	my ($version, $checkpoint) = split /\n/, $node->safe_psql('postgres', <<"EOT");
SET synchronous_commit = off;
SELECT first_version FROM event_store.append('ev', 's-1', 'Async', '{}');
$checkpoint_sql;
INSERT INTO plain VALUES (1);
EOT
	crash();
	note('of the plain table, rows that the crash has left: ' . $node->safe_psql('postgres', 'SELECT count(*) FROM plain'));
	is($node->safe_psql('postgres', q{SELECT version FROM event_store.last_event('ev', 's-1')}), 1, 'an append with synchronous_commit = off survives a crash');
	is($node->safe_psql('postgres', "SELECT count(*) FROM event_store.read_all('ev', $checkpoint)"), 0, 'and so does the checkpoint of who has read it');

	$node->safe_psql('postgres', q{SET synchronous_commit = off; INSERT INTO ev (stream, type, data) VALUES ('s-2', 'Async', '{}')});
	crash();
	is($node->safe_psql('postgres', q{SELECT event_store.stream_version('ev', 's-2')}), 1, 'so does a plain INSERT');
}

# A prepared transaction across a crash.
{
	my $checkpoint = $node->safe_psql('postgres', $checkpoint_sql);
	$node->safe_psql('postgres', q{BEGIN; SELECT event_store.append('ev', 'p-1', 'Prepared', '{}'); PREPARE TRANSACTION 'prepared'});
	$node->safe_psql('postgres', q{SELECT event_store.append('ev', 'p-2', 'Other', '{}')});
	my $holders = q{SELECT event_table, pid, prepared_transaction, since < now(), "user" = current_user FROM event_store.mark_holders};
	is($node->safe_psql('postgres', $holders), 'ev||prepared|t|t', 'a prepared transaction holds the mark');
	crash();
	is($node->safe_psql('postgres', $holders), 'ev||prepared|t|t', 'it still does after a crash');
	is($node->safe_psql('postgres', "SELECT count(*) FROM event_store.read_all('ev', $checkpoint)"), 0, 'nothing behind it is delivered');
	refused($node, q{SET lock_timeout = 10; SELECT event_store.append('ev', 'p-1', 'T', '{}')}, '55P03', 'lock timeout', 'its stream is locked');
	is($node->safe_psql('postgres', q{SELECT first_version FROM event_store.append('ev', 'p-3', 'Third', '{}')}), 1, 'other streams are not');
	$node->safe_psql('postgres', q{COMMIT PREPARED 'prepared'});
	is($node->safe_psql('postgres', "SELECT string_agg(type, ' ' ORDER BY position) FROM event_store.read_all('ev', $checkpoint)"),
		'Prepared Other Third', 'COMMIT PREPARED sets the mark free, and its event is delivered');
	is($node->safe_psql('postgres', $holders), '', 'nobody holds the mark any more');
	is($node->safe_psql('postgres', q{SELECT first_version FROM event_store.append('ev', 'p-1', 'T', '{}', expected_version => 1)}), 2, 'its stream goes on');
}

log_is_clean($node);
$node->stop;
done_testing();
