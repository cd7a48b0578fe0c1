# Everyday DDL and maintenance, while warmed-up sessions go on appending and
# reading; and pg_upgrade afterwards.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('ddl', conf => "allow_in_place_tablespaces = on\nautovacuum = off");
my $dir = PostgreSQL::Test::Utils::tempdir;

$node->safe_psql('postgres', <<'EOT');
CREATE ROLE other;
CREATE SCHEMA elsewhere;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE place LOCATION '';
SELECT event_store.create_event_table('ev');
SELECT event_store.append('ev', 's-' || n % 10, 'T', to_jsonb(n), correlation_id => 'c') FROM generate_series(1, 1000) n;
EOT
my $oid = $node->safe_psql('postgres', q{SELECT 'ev'::regclass::oid});

# The table by its OID, so that the sessions need not follow its name.
my $append = "SELECT first_version, first_position FROM event_store.append($oid, 'one', 'T', '{}')";
my $read = "SELECT (SELECT count(*) FROM event_store.read_stream($oid, 's-3')),"
  . " (SELECT count(*) FROM event_store.read_all($oid, max_count => 100000)),"
  . " (SELECT count(*) FROM event_store.read_category($oid, 'one')),"
  . " (SELECT count(*) FROM event_store.read_all($oid, correlation_id => 'c'))";
my @ddl = (
	'ALTER TABLE ev RENAME TO "Ev ents"',
	'ALTER TABLE "Ev ents" SET SCHEMA elsewhere',
	'ALTER TABLE elsewhere."Ev ents" RENAME TO ev',
	'ALTER TABLE elsewhere.ev SET SCHEMA public',
	'ALTER TABLE ev SET TABLESPACE place',
	'ALTER INDEX ev_pkey SET TABLESPACE place',
	'ALTER TABLE ev OWNER TO other',
	'VACUUM FULL ev',
	'VACUUM (ANALYZE, FREEZE) ev',
	'ANALYZE ev',
	'REINDEX TABLE ev',
	'REINDEX INDEX ev_stream_version_key',
	'REINDEX TABLE CONCURRENTLY ev',
	'DROP INDEX IF EXISTS late_idx, late_expr_idx',
	'CREATE INDEX CONCURRENTLY late_idx ON ev (type, position)',
	'CREATE INDEX CONCURRENTLY late_expr_idx ON ev (lower(type)) WHERE version > 2',
	'CLUSTER ev USING ev_pkey',
	'ALTER TABLE ev ADD COLUMN extra int DEFAULT 7',
	'CREATE INDEX CONCURRENTLY extra_idx ON ev (extra)',
	'DROP INDEX CONCURRENTLY extra_idx',
	'ALTER TABLE ev DROP COLUMN extra',
	'ALTER TABLE ev ADD CONSTRAINT sane CHECK (version < 1000000) NOT VALID',
	'ALTER TABLE ev VALIDATE CONSTRAINT sane',
	'ALTER TABLE ev DROP CONSTRAINT sane',
	'ALTER TABLE ev SET (fillfactor = 90)',
	'ALTER TABLE ev ALTER COLUMN data SET STORAGE EXTERNAL',
	'ALTER SEQUENCE ev_position_seq RENAME TO seq',
	'ALTER SEQUENCE seq RENAME TO ev_position_seq',
	'ALTER INDEX ev_event_id_key RENAME TO ids',
	'ALTER INDEX ids RENAME TO ev_event_id_key',
	'ALTER TABLE ev SET TABLESPACE pg_default',
	'ALTER INDEX ev_pkey SET TABLESPACE pg_default');

# One after the other, with sessions that are warm.
my $writer = $node->background_psql('postgres', on_error_stop => 0);
my $reader = $node->background_psql('postgres', on_error_stop => 0);
my $n = 0;
for my $command ('SELECT 1', @ddl)
{
	$node->safe_psql('postgres', $command);
	$n++;
	my $appended = $writer->query($append) . $writer->{stderr};
	my $seen = $reader->query($read) . $reader->{stderr};
	is("$appended $seen", "$n|" . (1000 + $n) . ' 100|' . (1000 + $n) . "|$n|1000", "after $command");
	$_->{stderr} = '' for $writer, $reader;
}
$_->quit for $writer, $reader;

# All of them again, while clients append and read without a pause.
$node->safe_psql('postgres', 'ALTER TABLE ev OWNER TO ' . getpwuid($<));
append_to_file("$dir/clients.sql", <<"EOT");
\\set s random(1, 5)
SELECT first_version FROM event_store.append($oid, 'many-' || :s, 'T', '{}');
SELECT count(*) FROM event_store.read_stream($oid, 'many-' || :s, direction => 'backward', max_count => 5);
SELECT checkpoint FROM event_store.read_batch($oid, after => 900, max_count => 5);
EOT
my ($out, $err) = ('', '');
my $clients = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-j', 1, '-T', 600, '-f', "$dir/clients.sql", $node->connstr('postgres') ],
	'>', \$out, '2>', \$err);
eventually($node, q{SELECT count(*) > 50 FROM ev WHERE stream LIKE 'many-%'}, 'clients append');
for my $command (@ddl)
{
	my ($result, $stdout, $stderr) = $node->psql('postgres', $command);
	unlike($stderr, qr/ERROR|WARNING/, "beside appends: $command");
}
my $so_far = $node->safe_psql('postgres', 'SELECT max(position) FROM ev');
eventually($node, "SELECT max(position) > $so_far + 50 FROM ev", 'they still do');
$clients->signal('INT');
$clients->finish;
unlike($err, qr/ERROR|aborted/, 'no client has met an error');
is($node->safe_psql('postgres', 'SELECT DISTINCT min(version) = 1 AND max(version) = count(*) FROM ev GROUP BY stream'), 't', 'no version is missing');
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM event_store.read_all('ev', max_count => 1000000)) = (SELECT count(*) FROM ev)}), 't', 'the feed has all');
is($node->safe_psql('postgres', 'SELECT guarded, problem FROM event_store.event_tables'), 't|', 'the guards are in order');
command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', '-d', 'postgres', '-p', $node->port, '-h', $node->host ], 'pg_amcheck finds nothing');

# pg_upgrade, from this version to the same one.  It refuses tablespaces then.
$node->safe_psql('postgres', <<'EOT');
DROP TABLESPACE place;
DROP EXTENSION amcheck;
SELECT event_store.save_snapshot('ev', 'one', 3, '3');
CREATE FUNCTION up(jsonb) RETURNS jsonb IMMUTABLE RETURN jsonb_build_object('up', $1);
SELECT event_store.register_upcaster('ev', 'T', 1, 'up(jsonb)'), event_store.register_event_type('ev', 'T', 'a type');
CREATE TABLE before_upgrade AS SELECT checkpoint, checkpoint_event_id FROM event_store.read_batch('ev', max_count => 100000);
EOT
my $rows = $node->safe_psql('postgres', 'SELECT count(*), max(position), md5(string_agg(ev::text, chr(10) ORDER BY position)) FROM ev');
my $new = PostgreSQL::Test::Cluster->new('upgraded');
$new->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]);
$node->stop;
my $bin = $node->config_data('--bindir');
chomp($bin = `pg_config --bindir`) unless $bin;
chdir $dir;    # pg_upgrade leaves files in the current directory
command_ok([ 'pg_upgrade', '--no-sync', '-b', $bin, '-d', $node->data_dir, '-D', $new->data_dir, '-s', $new->host,
		'-p', $node->port, '-P', $new->port ], 'pg_upgrade')
  or diag(join '', map { slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/*'));
$new->start;
is($new->safe_psql('postgres', 'SELECT count(*), max(position), md5(string_agg(ev::text, chr(10) ORDER BY position)) FROM ev'), $rows, 'the events are those from before');
is($new->safe_psql('postgres', 'SELECT guarded, problem FROM event_store.event_tables'), 't|', 'guarded as before');
is($new->safe_psql('postgres', q{SELECT version, state FROM event_store.load_snapshot('ev', 'one')}), '3|3', 'the snapshot is still there');
is($new->safe_psql('postgres', q{SELECT schema_version, data, description FROM event_store.read_stream('ev', 's-3', max_count => 1) JOIN event_store.event_types USING (type)}),
	'2|{"up": 3}|a type', 'so are upcasters and event types');
$n++;
is($new->safe_psql('postgres', q{SELECT first_version FROM event_store.append('ev', 'one', 'Upgraded', '{}')}), $n, 'appends go on');
is($new->safe_psql('postgres', q{SELECT type FROM before_upgrade, event_store.read_all('ev', checkpoint, after_event_id => checkpoint_event_id)}), 'Upgraded', 'and so does the feed');

log_is_clean($node, $new);
$new->stop;
done_testing();
