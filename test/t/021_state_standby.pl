# States are loaded on a standby, which writes nothing.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('state_primary', allows_streaming => 1);
$primary->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
CREATE FUNCTION count_sql(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT to_jsonb(state::int + 1)';
CREATE FUNCTION count_plpgsql(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS 'BEGIN RETURN to_jsonb(state::int + 1); END';
SELECT event_store.create_aggregate('sql', 'count_sql(jsonb, event_store.event)', '0', 10);
SELECT event_store.create_aggregate('plpgsql', 'count_plpgsql(jsonb, event_store.event)', '0');
SELECT event_store.create_aggregate('merge');
SELECT event_store.append('ev', 's-' || n % 3, 'T', jsonb_build_object('k' || n, n)) FROM generate_series(1, 60) n;
EOT
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('state_standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', q{SELECT event_store.take_snapshots('ev', 'sql'); SELECT event_store.append('ev', 's-1', 'T', '{"last": 1}')});
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', q{SELECT * FROM event_store.load('ev', 's-1', 'sql')}), '21|21|1|20', 'load, with a snapshot');
is($standby->safe_psql('postgres', q{SELECT * FROM event_store.load('ev', 's-1', 'plpgsql', 7)}), '7|7|7|', 'at a version');
is($standby->safe_psql('postgres', q{SELECT version, state -> 'last' FROM event_store.load('ev', 's-1', 'merge', occurred_as_of => now())}), '21|1', 'in the order of time');
is($standby->safe_psql('postgres', q{SELECT stream, version, state FROM event_store.load_category('ev', 's', 'sql')}), "s-0|20|20\ns-1|21|21\ns-2|20|20", 'load_category');
is($standby->safe_psql('postgres', q{SELECT event_store.fold(e, 'sql') FROM event_store.read_stream('ev', 's-1') e}), '21', 'fold');
is($standby->safe_psql('postgres', q{SELECT path, after FROM event_store.diff_state('ev', 's-1', 'merge', 20)}), '{last}|1', 'diff_state');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM event_store.verify_snapshots('ev', 'sql')}), '0', 'verify_snapshots');
is($standby->safe_psql('postgres', q{SELECT snapshot_version, state, version, jsonb_array_length(events) FROM event_store.read_stream_from_snapshot('ev', 's-1', 'sql')}), '20|20|21|1', 'read_stream_from_snapshot');
for my $write (q{create_aggregate('more')}, q{drop_aggregate('sql')}, q{take_snapshots('ev', 'sql')}, q{prune_snapshots('ev')}, q{save_snapshot('ev', 's-1', 1, '1', 'sql')})
{
	refused($standby, "SELECT event_store.$write", '25006', 'read-only transaction', "refused: $write");
}

$standby->promote;
is($standby->safe_psql('postgres', q{SELECT event_store.append('ev', 's-1', 'T', '{}') FROM generate_series(1, 10); SELECT event_store.take_snapshots('ev', 'sql')}) =~ s/.*\n//sr, '1', 'after promotion snapshots go on');

log_is_clean($primary, $standby);
$standby->stop;
$primary->stop;
done_testing();
