# A streaming standby, and what becomes of it when it is promoted.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', allows_streaming => 1);
$primary->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
SELECT event_store.append('ev', 's-1', 'Early', '{}') FROM generate_series(1, 3);
EOT

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', q{SELECT event_store.append('ev', 's-1', 'Late', '{}', expected_version => 3)});
my $checkpoint_sql = q{SELECT format('after => %s, after_event_id => %L', checkpoint, checkpoint_event_id) FROM event_store.read_batch('ev')};
my $checkpoint = $primary->safe_psql('postgres', $checkpoint_sql);
$primary->wait_for_catchup($standby);

# streams can be read on a standby
is($standby->safe_psql('postgres', q{SELECT string_agg(version || type, ' ') FROM event_store.read_stream('ev', 's-1')}),
	'1Early 2Early 3Early 4Late', 'read_stream');
is($standby->safe_psql('postgres', q{SELECT event_store.stream_version('ev', 's-1')}), 4, 'stream_version');
is($standby->safe_psql('postgres', q{SELECT version FROM event_store.last_event('ev', 's-1', 'Early')}), 3, 'last_event');
is($standby->safe_psql('postgres', q{SELECT r.version FROM ev, event_store.read_event('ev', event_id) r WHERE ev.version = 2}), 2, 'read_event');
is($standby->safe_psql('postgres', q{SELECT stream, version FROM event_store.streams('ev')}), 's-1|4', 'streams');
is($standby->safe_psql('postgres', q{SELECT event_store.position_at('ev', now())}), 4, 'position_at');
is($standby->safe_psql('postgres', q{SELECT event_table, last_position, guarded FROM event_store.event_tables}), 'ev|4|t', 'the view event_tables');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM event_store.mark_holders}), 0, 'the view mark_holders');

# feeds cannot, without a worker on the primary, and say so
for my $feed (q{read_all('ev')}, q{read_category('ev', 's')}, q{read_batch('ev')}, q{high_water_mark('ev')})
{
	refused($standby, "SELECT event_store.$feed", '0A000', 'DETAIL:  The primary has not recorded how far', "$feed is refused where the primary has no worker");
}

# nor can anything be appended
for my $append (
	q{SELECT event_store.append('ev', 's-1', 'T', '{}')},
	q{SELECT event_store.append_batch('ev', 's-1', '{T}', '{1}')},
	q{SELECT event_store.append_json('ev', 's-1', '[{"type": "T", "data": 1}]')},
	q{SELECT event_store.append_streams('ev', '[{"stream": "s-1", "events": [{"type": "T", "data": 1}]}]')},
	q{INSERT INTO ev (stream, type, data) VALUES ('s-1', 'T', '{}')})
{
	# The table's own lock comes first, which recovery refuses with 55000.
	my ($result, $stdout, $stderr) = $standby->psql('postgres', $append);
	like($stderr, qr/read-only transaction|during recovery/, "refused: $append");
}

# Failover to a standby that has not got the last events.
$standby->stop;
$primary->safe_psql('postgres', q{SELECT event_store.append('ev', 's-1', 'Ahead', '{}', expected_version => 4)});
my $ahead = $primary->safe_psql('postgres', $checkpoint_sql);
$primary->stop('immediate');
$standby->start;
$standby->promote;

is($standby->safe_psql('postgres', q{SELECT first_version FROM event_store.append('ev', 's-1', 'Promoted', '{}', expected_version => 4)}), 5,
	'versions go on after promotion');
is($standby->safe_psql('postgres', "SELECT string_agg(type, ' ') FROM event_store.read_all('ev', $checkpoint)"), 'Promoted',
	'feeds work after promotion, and go on from a checkpoint that both have');
is($standby->safe_psql('postgres', q{SELECT string_agg(version::text, ' ' ORDER BY position) FROM ev}), '1 2 3 4 5', 'positions rise after promotion');
refused($standby, "SELECT event_store.read_all('ev', $ahead)", 'SE009', 'HINT:  ', 'a checkpoint at an event that was not taken over is noticed');
refused($standby, 'DELETE FROM ev', 'SE002', '', 'the guards hold after promotion');

log_is_clean($primary, $standby);
$standby->stop;
done_testing();
