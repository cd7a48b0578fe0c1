# Upcasters and event types go through pg_dump, and upcast afterwards.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('dump', no_extension => 1);
my $dir = PostgreSQL::Test::Utils::tempdir;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;

# Everything belongs to a role that is not a superuser, the extension too.
$node->safe_psql('postgres', <<'EOT');
CREATE ROLE keeper LOGIN;
CREATE ROLE reader LOGIN;
CREATE DATABASE shop OWNER keeper;
EOT
my @keeper = (extra_params => [ '-U', 'keeper' ]);
my @reader = (extra_params => [ '-U', 'reader' ]);
$node->safe_psql('shop', <<'EOT', @keeper);
CREATE EXTENSION event_store;
CREATE SCHEMA "Own Schema";
GRANT USAGE ON SCHEMA "Own Schema" TO reader;
SELECT event_store.create_event_table('"Own Schema"."Order Events"');
SELECT event_store.create_event_table('others');
GRANT SELECT ON "Own Schema"."Order Events", others TO reader;
CREATE FUNCTION "Own Schema"."Up ""cast"""(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1 || '{"up": 2}';
CREATE FUNCTION public.again(e jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN e || '{"again": 3}'; END $$;
SELECT event_store.register_upcaster('"Own Schema"."Order Events"', E'Type "ä" \\ \t', 2, 'again(jsonb)');
SELECT event_store.register_upcaster('"Own Schema"."Order Events"', E'Type "ä" \\ \t', 1, '"Own Schema"."Up ""cast"""(jsonb)');
SELECT event_store.register_upcaster('others', 'T', 7, 'again(jsonb)');
SELECT event_store.register_event_type('"Own Schema"."Order Events"', E'Type "ä" \\ \t', E'described,\nat length', NULL, '{"a": [1, null]}');
SELECT event_store.register_event_type('others', 'T', owner_team => 'others');
SELECT event_store.append('"Own Schema"."Order Events"', 'o-1', E'Type "ä" \\ \t', '{"n": 1}');
SELECT event_store.append('others', 'o-1', 'T', '{}', schema_version => 7);
EOT

my $describe = <<'EOT';
SELECT event_table, type, from_version, function FROM event_store.upcasters ORDER BY 1::text, 2, 3;
SELECT event_table, type, description, owner_team, example FROM event_store.event_types ORDER BY 1::text, 2;
SELECT schema_version, data FROM event_store.read_stream('"Own Schema"."Order Events"', 'o-1');
SELECT schema_version, data FROM event_store.read_all('others');
SELECT count(*) FROM event_store.check_upcasters('others');
EOT
my $before = $node->safe_psql('shop', $describe, @reader);
like($before, qr/^3\|\{"n": 1, "up": 2, "again": 3\}\n8\|\{"again": 3\}\n0$/m, 'there is something to compare');

my @dump = ('pg_dump', '-d', 'shop');
sub restored
{
	my ($db, $how) = @_;
	is($node->safe_psql($db, $describe, @reader), $before, "$how: all is as it was");
	my ($result, $stdout, $stderr) = $node->psql($db,
		q{SELECT event_store.register_upcaster('others', 'T', 9, 'again(jsonb)')}, @keeper);
	like($stderr, qr/would leave a hole/, "$how: the rules hold");
	is($node->safe_psql($db, q{BEGIN; SELECT event_store.register_upcaster('others', 'T', 8, 'again(jsonb)');
		SELECT schema_version FROM event_store.read_all('others'); ROLLBACK}, @keeper), "\n9", "$how: more can be registered");
	return;
}

$node->safe_psql('postgres', "CREATE DATABASE $_ OWNER keeper TEMPLATE template0") for qw(by_psql parallel owned in_two);
command_ok([ @dump, '-f', "$dir/shop.sql" ], 'pg_dump');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'by_psql', '-f', "$dir/shop.sql" ], 'restore by psql');
restored('by_psql', 'pg_dump | psql');

command_ok([ @dump, '-Fc', '-f', "$dir/shop.dump" ], 'pg_dump -Fc');
command_ok([ 'pg_restore', '-j', '4', '-d', 'parallel', "$dir/shop.dump" ], 'pg_restore -j 4');
restored('parallel', 'pg_restore -j 4');

command_ok([ @dump, '-U', 'keeper', '-Fc', '-f', "$dir/owned.dump" ], 'pg_dump by the owner, who is no superuser');
command_ok([ 'pg_restore', '-U', 'keeper', '--no-owner', '-d', 'owned', "$dir/owned.dump" ], 'pg_restore by the owner');
restored('owned', 'by the owner');

# The data alone, into a database in which somebody has already read.
command_ok([ @dump, '--schema-only', '-f', "$dir/schema.sql" ], 'pg_dump --schema-only');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'in_two', '-f', "$dir/schema.sql" ], 'restore of the schema');
my $session = $node->background_psql('in_two');
is($session->query(q{SELECT count(*) FROM event_store.read_all('others')}), 0, 'a session has read before');
command_ok([ @dump, '--data-only', '-Fc', '-f', "$dir/data.dump" ], 'pg_dump --data-only');
{
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	command_ok([ 'pg_restore', '--data-only', '-d', 'in_two', "$dir/data.dump" ], 'restore of the data, with session_replication_role = replica');
}
is($session->query(q{SELECT schema_version, data FROM event_store.read_all('others')}), '8|{"again": 3}', 'it upcasts when it reads again');
$session->quit;
restored('in_two', 'schema, then data');

log_is_clean($node);
$node->stop;
done_testing();
