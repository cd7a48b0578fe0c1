# Notifications by the appending transaction.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('notify', conf => 'max_prepared_transactions = 5');
$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
SELECT event_store.create_event_table('other');
CREATE ROLE writer LOGIN;
GRANT INSERT ON ev TO writer;
EOT
my ($channel, $other) = split /\|/,
  $node->safe_psql('postgres', q{SELECT event_store.channel('ev'), event_store.channel('other')});
isnt($channel, $other, 'each event table has its own channel');

my $listener = $node->background_psql('postgres');
$listener->query_safe(qq{LISTEN "$channel"; LISTEN "$other"; LISTEN marker;});

# The notifications that a command has caused, in order.  Notifications arrive
# in the order of commits, so all have arrived when the one sent behind them has.
my $marks = 0;
sub heard
{
	my ($sql, @params) = @_;
	my $output = '';

	$node->safe_psql('postgres', $sql, @params);
	$marks++;
	$node->safe_psql('postgres', "NOTIFY marker, '$marks'");
	for (1 .. 100000)
	{
		$output .= $listener->query_safe('SELECT NULL') . "\n";
		last if $output =~ /"marker" with payload "$marks"/;
	}
	return join ' ', map { s/^\Q$channel\E /ev /r =~ s/^\Q$other\E /other /r }
	  map { "$_->[0] $_->[1]" } grep { $_->[0] ne 'marker' }
	  map { /Asynchronous notification "([^"]+)"(?: with payload "([^"]*)")?/ ? [ $1, $2 // '' ] : () } split /\n/, $output;
}

my $append = q{SELECT event_store.append('ev', 's-1', 'T', '{}')};

is(heard($append), 'ev 1', 'an append notifies, with its position');
is(heard(q{INSERT INTO ev (stream, type, data) SELECT 's-2', 'T', '{}' FROM generate_series(1, 3)}), 'ev 4', 'a plain INSERT does so once, with its last position');
is(heard("BEGIN; $append; $append; $append; COMMIT"), 'ev 7', 'so does a transaction of several appends');
is(heard(qq{BEGIN; $append; SELECT event_store.append('other', 's-1', 'T', '{}'); COMMIT}), 'ev 8 other 1', 'once for each table');
is(heard("BEGIN; $append; ROLLBACK"), '', 'a rolled-back transaction does not');
is(heard("BEGIN; SAVEPOINT s; $append; ROLLBACK TO s; $append; COMMIT"), 'ev 11', 'an append that a savepoint has undone does not count');
is(heard(q{SELECT event_store.append('ev', 's-9', 'T', '{}', event_id => '00000000-0000-7000-8000-000000000001')}), 'ev 12', 'an append with an id notifies');
is(heard(q{SELECT event_store.append('ev', 's-9', 'T', '{}', event_id => '00000000-0000-7000-8000-000000000001')}), '', 'its repetition, which writes nothing, does not');
is(heard($append, extra_params => [ '-U', 'writer' ]), 'ev 13', 'a role that may only append notifies as well');

is(heard("SET event_store.notify = off; $append"), '', 'event_store.notify = off: none');
is(heard("SET event_store.notify = 'transaction'; $append"), 'ev 15', 'event_store.notify = transaction');
is(heard("SET event_store.notify = off; $append", extra_params => [ '-U', 'writer' ]), 'ev 16', 'not everybody may turn it off, not even before the library is loaded');
refused($node, q{SELECT event_store.channel('ev'); SET ROLE writer; SET event_store.notify = off}, '42501', '', 'nor when it is');

is(heard("BEGIN; $append; PREPARE TRANSACTION 'p'"), '', 'PREPARE TRANSACTION works, without a notification');
is(heard("COMMIT PREPARED 'p'"), '', 'so does COMMIT PREPARED');
is(heard($append), 'ev 18', 'the next append notifies again');

$node->safe_psql('postgres', 'ALTER TABLE ev RENAME TO renamed');
is($node->safe_psql('postgres', q{SELECT event_store.channel('renamed')}), $channel, 'the channel is the same after a rename');

$listener->quit;
log_is_clean($node);
$node->stop;
done_testing();
