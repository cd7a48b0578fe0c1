# A lock table that is full: who appends to too many streams in one transaction is told
# what to do, and loses nothing but that transaction; all others go on.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('lock_table', conf => <<'EOT');
shared_preload_libraries = 'event_store'
max_locks_per_transaction = 10
max_connections = 15
fsync = off
EOT
my $dir = PostgreSQL::Test::Utils::tempdir;
my $hint = 'HINT:  A transaction that appends to very many streams should first run LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE; it then needs no lock per stream\.';

$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
CREATE TABLE copied (n bigint);
CREATE PROCEDURE fill_lock_table() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 100000 LOOP
		PERFORM event_store.append('ev', 'fill-' || i, 'Lost', '{}');
	END LOOP;
EXCEPTION WHEN out_of_memory THEN
	RAISE NOTICE 'full';
END $$;
CREATE VIEW left_over AS SELECT (SELECT count(*) FROM ev) AS events, (SELECT count(*) FROM pg_locks WHERE locktype = 'userlock') AS locks;
EOT
append_to_file("$dir/many", join '', map { "copied-$_\tT\t{}\n" } 1 .. 5000);

# One session: each way to append too much, then a statement that works.
my $events = 0;
for my $case (
	[ 'append', q{DO $$ BEGIN FOR i IN 1 .. 5000 LOOP PERFORM event_store.append('ev', 'many-' || i, 'T', '{}'); END LOOP; END $$} ],
	[ 'append_streams', q{SELECT count(*) FROM event_store.append_streams('ev', (SELECT jsonb_agg(jsonb_build_object('stream', 'many-' || i, 'events', '[{"type": "T", "data": 1}]'::jsonb)) FROM generate_series(1, 900) i))} ],
	[ 'INSERT', q{INSERT INTO ev (stream, type, data) SELECT 'many-' || i, 'T', '{}' FROM generate_series(1, 5000) i} ],
	[ 'COPY', "COPY ev (stream, type, data) FROM '$dir/many'" ])
{
	my ($name, $sql) = @$case;
	my ($out, $err) = ('', '');
	my $script = "$sql;\nSELECT * FROM left_over;\nSELECT first_version FROM event_store.append('ev', 'after-$name', 'T', '{}');\n";

	IPC::Run::run([ 'psql', '-XqAt', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres') ], '<', \$script, '>', \$out, '2>', \$err);
	like($err, qr/ERROR:  53200: out of shared memory\n$hint/, "$name: too many streams");
	is($out, "$events|0\n1\n", "$name: nothing of it is there, no lock is left, and the session goes on");
	$events++;
	is($node->safe_psql('postgres', "BEGIN; LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE; $sql; SELECT locks < 10 FROM left_over; ROLLBACK") =~ s/^900\n//r, 't', "$name: as the hint says");
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM event_store.append_streams('ev', (SELECT jsonb_agg(jsonb_build_object('stream', 'more-' || i, 'events', '[{"type": "T", "data": 1}]'::jsonb)) FROM generate_series(1, 2000) i))}),
	2000, 'append_streams locks the table by itself above a thousand streams');
$events += 2000;

# Somebody goes on holding all that he could get, since a savepoint gives none back;
# another one is in the midst of his transaction.  A new connection could not even be
# made then.
my $open = $node->background_psql('postgres', on_error_stop => 0);
my $greedy = $node->background_psql('postgres', on_error_stop => 0);
my $other = $node->background_psql('postgres', on_error_stop => 0);
my $checkpoint = $node->safe_psql('postgres', q{SELECT max(position) FROM ev});
is($open->query_safe(q{BEGIN; SELECT first_version FROM event_store.append('ev', 'open-1', 'T', '{}')}), 1, 'a transaction is open');
is($other->query_safe(q{SELECT first_version FROM event_store.append('ev', 'other-1', 'T', '{}')}), 1, 'another session has appended');
$greedy->query_safe('BEGIN');
like($greedy->query('CALL fill_lock_table()') . $greedy->{stderr}, qr/NOTICE:  full/, 'a third one fills the lock table, and rolls that back to a savepoint');
$greedy->{stderr} = '';
cmp_ok($other->query_safe(q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), '>', 100, 'it goes on holding the locks');

$other->query(q{SELECT event_store.append('ev', 'other-2', 'T', '{}')});
like($other->{stderr}, qr/ERROR:  out of shared memory\nHINT: /, 'who wants one more lock is told');
$other->{stderr} = '';
is($other->query_safe(q{SELECT count(*) FROM event_store.read_stream('ev', 'other-1')}), 1, 'and can go on reading');
is($greedy->query_safe(q{SELECT first_version FROM event_store.append('ev', 'fill-1', 'T', '{}')}), 1, 'who holds the lock of a stream can append to it');
is($open->query_safe(q{SELECT first_version FROM event_store.append('ev', 'open-1', 'T', '{}')}), 2, 'so can the one who was there before');
is($open->query_safe('COMMIT'), '', 'and can commit');
$greedy->query_safe('COMMIT');
is($other->query_safe(q{SELECT first_version FROM event_store.append('ev', 'other-2', 'T', '{}')}), 1, 'all go on when it has ended');
$_->quit for $open, $greedy, $other;
$events += 5;

is($node->safe_psql('postgres', 'SELECT * FROM left_over'), "$events|0", 'what was acknowledged is there, no lock is left');
is($node->safe_psql('postgres', q{SELECT string_agg(stream, ' ' ORDER BY stream, version) FROM event_store.read_all('ev', after => } . $checkpoint . ')'), 'fill-1 open-1 open-1 other-1 other-2', 'the feed has it');
eventually($node, q{SELECT checkpoint = (SELECT max(position) FROM ev) FROM event_store.feeds}, 'so has the worker');
log_is_clean($node);
$node->stop;
done_testing();
