# Aggregates and snapshots go through pg_dump, and states are the same afterwards.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('state_dump', no_extension => 1);
my $dir = PostgreSQL::Test::Utils::tempdir;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;

# The database belongs to a role that is no superuser; another one has an aggregate in it.
$node->safe_psql('postgres', <<'EOT');
CREATE ROLE keeper LOGIN;
CREATE ROLE other LOGIN;
CREATE DATABASE shop OWNER keeper;
EOT
my @keeper = (extra_params => [ '-U', 'keeper' ]);
$node->safe_psql('shop', <<'EOT', @keeper);
CREATE EXTENSION event_store;
CREATE SCHEMA "Own Schema";
GRANT USAGE ON SCHEMA "Own Schema" TO other;
CREATE FUNCTION "Own Schema"."Count It"(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE
	AS $$ SELECT jsonb_build_object('n', (state ->> 'n')::int + 1) $$;
SELECT event_store.create_event_table('"Own Schema"."Order Events"');
SELECT event_store.append_batch('"Own Schema"."Order Events"', 'order-' || n, array_fill('T'::text, ARRAY[n * 7]), array_fill('{"a": 1}'::jsonb, ARRAY[n * 7]))
  FROM generate_series(1, 30) n;
SELECT event_store.create_aggregate('count', '"Own Schema"."Count It"(jsonb, event_store.event)', '{"n": 0}', 50, 3);
SELECT event_store.create_aggregate(E'odd \'"\n\t\\ \u00e4', initial => '{"x": [1, null, "\n\\"]}');
SELECT event_store.take_snapshots('"Own Schema"."Order Events"', 'count');
SELECT event_store.save_snapshot('"Own Schema"."Order Events"', 'order-1', 7, '{"by": "hand"}');
GRANT CREATE ON DATABASE shop TO other;
EOT
$node->safe_psql('shop', q{SELECT event_store.create_aggregate('others', snapshot_every => 9)}, extra_params => [ '-U', 'other' ]);

my $describe = <<'EOT';
SELECT name, owner, reducer, initial, snapshot_every, schema_version FROM event_store.aggregates ORDER BY name;
SELECT * FROM event_store.snapshots ORDER BY stream, aggregate, schema_version, version;
SELECT * FROM event_store.load_category('"Own Schema"."Order Events"', 'order', 'count');
SELECT * FROM event_store.load_category('"Own Schema"."Order Events"', 'order', 'others');
SELECT * FROM event_store.verify_snapshots('"Own Schema"."Order Events"', 'count');
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'event_store.aggregates'::regclass;
EOT
my $before = $node->safe_psql('shop', $describe);
like($before, qr/^others\|other\|.*^order-30\|210\|\{"n": 210\}\|0\|210$/ms, 'there is something to compare');

# by a superuser
$node->safe_psql('postgres', 'CREATE DATABASE by_psql OWNER keeper TEMPLATE template0');
command_ok([ 'pg_dump', '-d', 'shop', '-f', "$dir/shop.sql" ], 'pg_dump');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'by_psql', '-f', "$dir/shop.sql" ], 'restore by psql');
is($node->safe_psql('by_psql', $describe), $before, 'all is as it was');

# by the owner of the database: an aggregate whose owner he is not becomes his
$node->safe_psql('postgres', 'CREATE DATABASE owned OWNER keeper TEMPLATE template0');
command_ok([ 'pg_dump', '-U', 'keeper', '-Fc', '-d', 'shop', '-f', "$dir/owned.dump" ], 'pg_dump by the owner');
command_ok([ 'pg_restore', '-U', 'keeper', '--no-owner', '-d', 'owned', "$dir/owned.dump" ], 'pg_restore by the owner');
(my $expected = $before) =~ s/^others\|other\|/others|keeper|/m;
is($node->safe_psql('owned', $describe), $expected, 'all is as it was, but for the owner of an aggregate');

# Life goes on.
for my $db ('by_psql', 'owned')
{
	is($node->safe_psql($db, q{SELECT event_store.append('"Own Schema"."Order Events"', 'order-30', 'T', '{}') FROM generate_series(1, 50)} . ';'
		  . q{SELECT event_store.take_snapshots('"Own Schema"."Order Events"', 'count')}, @keeper) =~ s/.*\n//sr, '1', "$db: snapshots go on from those that were restored");
	is($node->safe_psql($db, q{SELECT version, state, events_folded, snapshot_version FROM event_store.load('"Own Schema"."Order Events"', 'order-30', 'count')}, @keeper),
		'260|{"n": 260}|0|260', "$db: and are used");
	is($node->safe_psql($db, q{SELECT event_store.create_aggregate('count', '"Own Schema"."Count It"(jsonb, event_store.event)', '{"n": 0}', NULL, 3, or_replace => true); SELECT event_store.drop_aggregate('count')}, @keeper),
		"\n", "$db: the owner of an aggregate is its owner");
}

log_is_clean($node);
$node->stop;
done_testing();
