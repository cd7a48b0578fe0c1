# An event table that a logical subscription feeds.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_server('publisher', allows_streaming => 'logical');
my $subscriber = new_server('subscriber', allows_streaming => 'logical');
my $rows = 'SELECT * FROM ev ORDER BY position';

$_->safe_psql('postgres', q{SELECT event_store.create_event_table('ev')}) for $publisher, $subscriber;
$publisher->safe_psql('postgres', <<'EOT');
SELECT event_store.append('ev', 's-' || n % 3, 'Copied', to_jsonb(n)) FROM generate_series(1, 10) n;
BEGIN;
SELECT event_store.append('ev', 's-1', 'Lost', '{}');
ROLLBACK;
CREATE PUBLICATION pub FOR TABLE ev;
EOT

# Warm: this session must notice that the table is fed from now on.
my $warm = $subscriber->background_psql('postgres', on_error_stop => 0);
is($warm->query(q{SELECT count(*) FROM event_store.read_all('ev')}), 0, 'a feed works before there is a subscription');

my $connstr = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION sub CONNECTION '$connstr' PUBLICATION pub");
$subscriber->wait_for_subscription_sync($publisher, 'sub');
$publisher->safe_psql('postgres', q{SELECT event_store.append('ev', 's-' || n % 3, 'Streamed', to_jsonb(n)) FROM generate_series(1, 10) n});
$publisher->wait_for_catchup('sub');

is($subscriber->safe_psql('postgres', $rows), $publisher->safe_psql('postgres', $rows), 'rows arrive with their versions and positions');
is($subscriber->safe_psql('postgres', q{SELECT string_agg(version::text, ' ') FROM event_store.read_stream('ev', 's-1')}), '1 2 3 4 5 6 7 8',
	'streams can be read on the subscriber');
for my $feed (q{read_all('ev')}, q{read_category('ev', 's')}, q{read_batch('ev')}, q{high_water_mark('ev')})
{
	refused($subscriber, "SELECT event_store.$feed", '0A000', 'HINT:  .*publisher', "$feed is refused");
}
$warm->query(q{SELECT event_store.read_all('ev')});
like($warm->{stderr}, qr/a logical subscription feeds the table/, 'also in a session that had used the table before');
$warm->{stderr} = '';
refused($subscriber, q{SELECT event_store.append('ev', 's-1', 'Own', '{}')}, 'SE005', 'below the greatest position',
	'an append of its own on the subscriber is refused, since its sequence stands at 0');
refused($subscriber, 'UPDATE ev SET type = $$x$$', 'SE002', '', 'UPDATE is refused on the subscriber');
refused($subscriber, 'DELETE FROM ev', 'SE002', '', 'DELETE is refused on the subscriber');

# What the publisher does with its guards off does not get through.
my $position = -s $subscriber->logfile;
$publisher->safe_psql('postgres', <<'EOT');
ALTER EVENT TRIGGER event_store_check_ddl DISABLE;
ALTER TABLE ev DISABLE TRIGGER ALL;
DELETE FROM ev WHERE position = 5;
EOT
ok($subscriber->wait_for_log(qr/ SE002 .*cannot DELETE "ev"/, $position), 'a DELETE that is replicated fails in the apply worker');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM ev WHERE position = 5'), 1, 'and the event stays');

# Without the subscription the table is an event table like any other.
$subscriber->safe_psql('postgres', <<'EOT');
ALTER SUBSCRIPTION sub DISABLE;
ALTER SUBSCRIPTION sub SET (slot_name = NONE);
DROP SUBSCRIPTION sub;
EOT
is($subscriber->safe_psql('postgres', q{SELECT * FROM event_store.guard('ev')}), 'set sequence public.ev_position_seq to 21', 'guard() sets the sequence');
is($warm->query(q{SELECT first_version, first_position FROM event_store.append('ev', 's-1', 'Own', '{}', expected_version => 8)}), '9|22', 'appends go on');
is($warm->query(q{SELECT count(*), max(position) FROM event_store.read_all('ev')}), '21|22', 'and the feed works');
$warm->quit;

log_is_clean($publisher, $subscriber);
$_->stop for $subscriber, $publisher;
done_testing();
