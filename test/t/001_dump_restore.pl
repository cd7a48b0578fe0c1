# A database with event tables goes through pg_dump and is the same afterwards.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('dump', no_extension => 1,
	conf => 'max_prepared_transactions = 5');
my $port = $node->port;
my $dir = PostgreSQL::Test::Utils::tempdir;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $port;
my $superuser = getpwuid($<);

# Everything belongs to a role that is not a superuser, the extension too.
$node->safe_psql('postgres', <<'EOT');
CREATE ROLE keeper LOGIN;
CREATE ROLE reader LOGIN;
CREATE DATABASE shop OWNER keeper;
EOT
my @keeper = (extra_params => [ '-U', 'keeper' ]);
$node->safe_psql('shop', <<'EOT', @keeper);
CREATE EXTENSION event_store;
CREATE SCHEMA "Own Schema";
CREATE TABLE customers (name text PRIMARY KEY);
INSERT INTO customers VALUES ('ann'), ('bob');

SELECT event_store.create_event_table('"Own Schema"."Order Events"');
ALTER TABLE "Own Schema"."Order Events"
	ADD COLUMN customer text DEFAULT 'ann' NOT NULL REFERENCES customers,
	ADD COLUMN noted_at timestamptz DEFAULT clock_timestamp(),
	ADD COLUMN total int GENERATED ALWAYS AS ((data ->> 'total')::int) STORED,
	ADD CONSTRAINT total_positive CHECK (total > 0);
CREATE INDEX ON "Own Schema"."Order Events" (customer, position);
CREATE TABLE noticed (position bigint);
CREATE FUNCTION notice() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.noticed VALUES (NEW.position); RETURN NEW; END $$;
CREATE TRIGGER notice AFTER INSERT ON "Own Schema"."Order Events"
	FOR EACH ROW EXECUTE FUNCTION notice();
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN NEW.type := upper(NEW.type); RETURN NEW; END $$;
CREATE TRIGGER shout BEFORE INSERT ON "Own Schema"."Order Events"
	FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TABLE invoices (event_id uuid REFERENCES "Own Schema"."Order Events" (event_id));
ALTER TABLE "Own Schema"."Order Events" ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON "Own Schema"."Order Events" TO reader USING (customer = 'ann');
GRANT USAGE ON SCHEMA "Own Schema" TO reader;
GRANT SELECT ON "Own Schema"."Order Events" TO reader;

SELECT event_store.create_event_table('plain_events');
SELECT event_store.create_event_table('no_events');
CREATE TABLE audit (n serial, what text);
SELECT event_store.make_append_only('audit');
INSERT INTO audit (what) VALUES ('created'), ('filled');
EOT
$node->safe_psql('shop', <<'EOT', @keeper);
SELECT event_store.append_batch('"Own Schema"."Order Events"', 'order-' || n % 20,
		ARRAY['placed', 'paid'], ARRAY['{"total": 3}', '{}']::jsonb[],
		correlation_id => CASE WHEN n % 3 = 0 THEN 'c' || n END)
  FROM generate_series(1, 200) n;
INSERT INTO "Own Schema"."Order Events" (stream, type, data, customer, occurred_at)
VALUES (E'order-\'"\n\t\\ \u00e4', 'placed', '{"total": 1}', 'bob', '1999-01-01');
INSERT INTO invoices SELECT event_id FROM "Own Schema"."Order Events" WHERE version = 2;
SELECT event_store.append('plain_events', 'a-1', 'T', '{}') FROM generate_series(1, 5);
BEGIN;
SELECT event_store.append('plain_events', 'a-1', 'T', '{}') FROM generate_series(1, 40);
ROLLBACK;
SELECT event_store.save_snapshot('"Own Schema"."Order Events"', 'order-1', 2, '{"paid": true}');
SELECT event_store.save_snapshot('plain_events', 'a-1', 5, '5');
EOT

# All that shall be the same afterwards, as lines of text in any order.
my $describe = <<'EOT';
SELECT * FROM "Own Schema"."Order Events";
SELECT * FROM plain_events;
SELECT * FROM no_events;
SELECT * FROM audit;
SELECT * FROM customers;
SELECT * FROM invoices;
SELECT * FROM noticed;
SELECT last_value, is_called FROM "Own Schema"."Order Events_position_seq";
SELECT last_value, is_called FROM plain_events_position_seq;
SELECT last_value, is_called FROM no_events_position_seq;
SELECT * FROM pg_sequences;
SELECT event_table, owner, last_position, guarded, problem FROM event_store.event_tables;
SELECT event_store.check_guards('audit');
SELECT event_table, stream, aggregate, schema_version, version, state, saved_at FROM event_store.snapshots;
SELECT tgrelid::regclass, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal;
SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype IN ('c', 'f', 'p', 'u');
SELECT schemaname, tablename, indexdef FROM pg_indexes WHERE schemaname !~ '^pg_';
SELECT * FROM pg_policies;
SELECT oid::regclass, relrowsecurity, relacl FROM pg_class WHERE relnamespace::regnamespace::text IN ('public', '"Own Schema"', 'event_store');
SELECT evtname, evtevent, evtfoid::regprocedure, evtenabled, evttags FROM pg_event_trigger;
SELECT extname, extversion, extrelocatable, extowner::regrole FROM pg_extension WHERE extname = 'event_store';
EOT
my $before = $node->safe_psql('shop', $describe);
my $checkpoint = $node->safe_psql('shop',
	"SELECT quote_nullable(checkpoint) || ', after_event_id => ' || quote_nullable(checkpoint_event_id)"
	  . q{ FROM event_store.read_batch('"Own Schema"."Order Events"', max_count => 300)});
like($before, qr/bob/, 'there is something to compare');

# Compares a restored database with the original one.  Where a superuser has
# restored it the extension is his, and so are the privileges on it.
sub same
{
	my ($db, $name) = @_;
	my %count;

	$count{$_}++ for lines($before, $db);
	$count{$_}-- for lines($node->safe_psql($db, $describe), $db);
	is(join("\n", map { ($count{$_} > 0 ? "missing: " : "added: ") . $_ } grep { $count{$_} } sort keys %count),
		'', $name);
	return;
}

sub lines
{
	my ($text, $db) = @_;
	return grep { $db eq 'owned' || !/^event_store[.|]/ } split /\n/, $text;
}

# Life goes on in a restored database.
sub lives
{
	my ($db, $how, $user) = @_;
	my @as = (extra_params => [ '-U', $user // 'keeper' ]);

	is($node->safe_psql($db, q{SELECT count(*), min(position) FROM event_store.read_all('"Own Schema"."Order Events"', after => } . "$checkpoint)", @as),
		'101|301', "$how: the feed goes on from the checkpoint");
	is($node->safe_psql($db, q{SELECT first_version, first_position FROM event_store.append('"Own Schema"."Order Events"', 'order-1', 'placed', '{}', expected_version => 20)}, @as),
		'21|402', "$how: the next version and position of a table without holes");
	is($node->safe_psql($db, q{SELECT first_version, first_position FROM event_store.append('plain_events', 'a-1', 'T', '{}', expected_version => 5)}, @as),
		'6|46', "$how: the next position after what was rolled back");
	is($node->safe_psql($db, q{INSERT INTO no_events (stream, type, data) VALUES ('a-1', 'T', '{}') RETURNING version, position}, @as),
		'1|1', "$how: the first position of an empty table");
	is($node->safe_psql($db, q{SELECT version, state FROM event_store.load_snapshot('"Own Schema"."Order Events"', 'order-1')}, @as),
		'2|{"paid": true}', "$how: the snapshot");
	is($node->safe_psql($db, 'SELECT count(*) FROM noticed', @as), '402', "$how: the user's trigger fires once for each event");
	for my $table ('"Own Schema"."Order Events"', 'audit')
	{
		my ($result, $stdout, $stderr) = $node->psql($db, "DELETE FROM $table", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($stderr, qr/SE002/, "$how: $table is append-only");
	}
	return;
}

my @dump = ('pg_dump', '-d', 'shop');

# pg_dump | psql
$node->safe_psql('postgres', 'CREATE DATABASE by_psql OWNER keeper TEMPLATE template0');
command_ok([ @dump, '-f', "$dir/shop.sql" ], 'pg_dump');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'by_psql', '-f', "$dir/shop.sql" ], 'restore by psql');
same('by_psql', 'pg_dump | psql: all is as it was');
lives('by_psql', 'pg_dump | psql', $superuser);

# pg_dump -Fc | pg_restore -j 4
$node->safe_psql('postgres', 'CREATE DATABASE parallel OWNER keeper TEMPLATE template0');
command_ok([ @dump, '-Fc', '-f', "$dir/shop.dump" ], 'pg_dump -Fc');
command_ok([ 'pg_restore', '-j', '4', '-d', 'parallel', "$dir/shop.dump" ], 'pg_restore -j 4');
same('parallel', 'pg_restore -j 4: all is as it was');
lives('parallel', 'pg_restore -j 4', $superuser);

# pg_restore --clean into a database that has these tables: dropping the guards
# and indexes one by one is refused, dropping the tables is not.
command_fails_like([ 'pg_restore', '--clean', '--if-exists', '-d', 'parallel', "$dir/shop.dump" ],
	qr/cannot drop guard.*errors ignored on restore/s, 'pg_restore --clean warns');
same('parallel', 'pg_restore --clean: all is as it was');

# pg_dump --schema-only, then --data-only
$node->safe_psql('postgres', 'CREATE DATABASE in_two OWNER keeper TEMPLATE template0');
command_ok([ @dump, '--schema-only', '-f', "$dir/schema.sql" ], 'pg_dump --schema-only');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'in_two', '-f', "$dir/schema.sql" ], 'restore of the schema');
is($node->safe_psql('in_two', q{SELECT bool_and(guarded), count(*) FROM event_store.event_tables}), 't|3', 'the schema alone has its guards in order');
command_ok([ @dump, '--data-only', '-Fc', '-f', "$dir/data.dump" ], 'pg_dump --data-only');
command_fails_like([ 'pg_restore', '--data-only', '-d', 'in_two', '-t', 'plain_events', '--exit-on-error', "$dir/data.dump" ],
	qr/position must not be given.*session_replication_role = replica/s, 'a restore of data alone is told how it works');
{
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	command_ok([ 'pg_restore', '--data-only', '-d', 'in_two', "$dir/data.dump" ], 'restore of the data, with session_replication_role = replica');
}
same('in_two', 'schema and data one after the other: all is as it was');
lives('in_two', 'schema, then data', $superuser);

# dump and restore by the database's owner, who is no superuser
$node->safe_psql('postgres', 'CREATE DATABASE owned OWNER keeper TEMPLATE template0');
command_ok([ @dump, '-U', 'keeper', '-Fc', '-f', "$dir/owned.dump" ], 'pg_dump by the owner');
command_ok([ 'pg_restore', '-U', 'keeper', '--no-owner', '-d', 'owned', "$dir/owned.dump" ], 'pg_restore by the owner');
same('owned', 'pg_restore by the owner: all is as it was');
lives('owned', 'pg_restore by the owner');

# pg_restore --clean --create replaces the whole database
command_ok([ 'pg_restore', '--clean', '--create', '-d', 'postgres', "$dir/shop.dump" ], 'pg_restore --clean --create');
same('shop', 'pg_restore --clean --create: all is as it was');

log_is_clean($node);
$node->stop;
done_testing();
