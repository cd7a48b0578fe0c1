# Many at once: every kind of expected version in every state of a stream; and
# a reader of the feed beside writers.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

use constant RACERS => 8;

my $node = new_server('racers');
my $dir = PostgreSQL::Test::Utils::tempdir;

# Name of the race, the stream's version before it, expected_version in SQL (or
# the version in an INSERT), and how many win.
my @races = (
	[ 'any_absent',         0, 'NULL',                          RACERS ],
	[ 'any_present',        3, 'NULL',                          RACERS ],
	[ 'new_absent',         0, '0',                             1 ],
	[ 'new_present',        3, '0',                             0 ],
	[ 'exact_absent',       0, '3',                             0 ],
	[ 'exact_at',           3, '3',                             1 ],
	[ 'exact_below',        3, '2',                             0 ],
	[ 'exact_above',        3, '4',                             0 ],
	[ 'exists_absent',      0, 'event_store.stream_exists()',   0 ],
	[ 'exists_present',     3, 'event_store.stream_exists()',   RACERS ],
	[ 'insert_absent',      0, 'insert NULL',                   RACERS ],
	[ 'insert_present',     3, 'insert NULL',                   RACERS ],
	[ 'insert_next_absent', 0, 'insert 1',                      1 ],
	[ 'insert_next',        3, 'insert 4',                      1 ],
	[ 'insert_old',         3, 'insert 3',                      0 ],
	[ 'check_exact',        3, 'check 3',                       1 ]);

$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('ev');
CREATE TABLE outcome (race text, state text);
CREATE FUNCTION race(stream text, how text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	state text := 'won';
BEGIN
	BEGIN
		IF how LIKE 'insert %' THEN
			EXECUTE format('INSERT INTO ev (stream, version, type, data) VALUES (%L, %s, ''Raced'', ''{}'')', stream, substr(how, 8));
		ELSIF how LIKE 'check %' THEN
			PERFORM event_store.append_streams('ev', jsonb_build_array(jsonb_build_object('stream', stream,
				'expected_version', substr(how, 7)::bigint, 'events', '[{"type": "Raced", "data": {}}]'::jsonb)),
				checks => '[{"stream": "untouched", "expected_version": 0}]');
		ELSE
			EXECUTE format('SELECT event_store.append(''ev'', %L, ''Raced'', ''{}'', expected_version => %s)', stream, how);
		END IF;
	EXCEPTION WHEN OTHERS THEN
		state := SQLSTATE;
	END;
	INSERT INTO outcome VALUES (stream, state);
END $$;
EOT
for my $race (@races)
{
	$node->safe_psql('postgres', qq{SELECT event_store.append('ev', '$race->[0]', 'Before', '{}') FROM generate_series(1, $race->[1])})
	  if $race->[1] > 0;
}

# All racers wait for one lock, and run when all of them are there.
my $starter = $node->background_psql('postgres');
$starter->query_safe('SELECT pg_advisory_lock(1)');
append_to_file("$dir/race.sql", "SELECT pg_advisory_lock_shared(1);\n" . join '', map { "SELECT race('$_->[0]', '$_->[2]');\n" } @races);
my ($out, $err) = ('', '');
my $racers = IPC::Run::start([ 'pgbench', '-n', '-c', RACERS, '-j', 2, '-t', 1, '-f', "$dir/race.sql", $node->connstr('postgres') ],
	'>', \$out, '2>', \$err);
eventually($node, q{SELECT count(*) = } . RACERS . q{ FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, RACERS . ' racers are at the start');
$starter->query_safe('SELECT pg_advisory_unlock(1)');
$racers->finish;
$starter->quit;
like($out, qr{actually processed: @{[RACERS]}/@{[RACERS]}}, 'all have come to the end');

for my $race (@races)
{
	my ($name, $before, $how, $winners) = @$race;
	my $losers = RACERS - $winners;
	is($node->safe_psql('postgres', "SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM outcome WHERE race = '$name' GROUP BY state) s"),
		join(', ', ($losers ? "SE001 $losers" : ()), ($winners ? "won $winners" : ())), "$name: $winners of @{[RACERS]} win");
	is($node->safe_psql('postgres', "SELECT coalesce(min(version), 1), count(*), coalesce(max(version), 0), event_store.stream_version('ev', '$name') FROM ev WHERE stream = '$name'"),
		join('|', 1, ($before + $winners) x 3), "$name: versions without gap");
}

# Writers of all kinds, and a reader that polls.  It keeps its checkpoint as it
# came with the batch, and what it has got, in its own order.
$node->safe_psql('postgres', <<'EOT');
SELECT event_store.create_event_table('feed');
CREATE TABLE got (n bigserial PRIMARY KEY, position bigint UNIQUE);
CREATE PROCEDURE follow() LANGUAGE plpgsql AS $$
DECLARE
	cp bigint; id uuid; b record; done boolean; polls bigint := 0;
BEGIN
	LOOP
		done := EXISTS (SELECT FROM pg_class WHERE relname = 'writers_are_done');
		SELECT * INTO b FROM event_store.read_batch('feed', after => cp, after_event_id => id, max_count => 20);
		INSERT INTO got (position) SELECT (e ->> 'position')::bigint FROM jsonb_array_elements(b.events) WITH ORDINALITY AS x (e, n) ORDER BY n;
		cp := b.checkpoint;
		id := b.checkpoint_event_id;
		polls := polls + 1;
		COMMIT;
		EXIT WHEN done AND b.events = '[]';
	END LOOP;
	RAISE NOTICE '% polls', polls;
END $$;
EOT
my $stream = q{'w-' || :client_id || '-' || :s};
append_to_file("$dir/plain.sql", "\\set s random(1, 9)\nSELECT event_store.append('feed', $stream, 'Plain', '{}');\n");
append_to_file("$dir/slow.sql", "\\set s random(1, 9)\nBEGIN;\nSELECT event_store.append('feed', $stream, 'Slow', '{}');\n\\sleep 15 ms\nSELECT event_store.append('feed', $stream, 'Slow', '{}');\nCOMMIT;\n");
append_to_file("$dir/lost.sql", "\\set s random(1, 9)\nBEGIN;\nSELECT event_store.append('feed', $stream, 'Lost', '{}');\n\\sleep 5 ms\nROLLBACK;\n");
append_to_file("$dir/half.sql", "\\set s random(1, 9)\nBEGIN;\nSAVEPOINT a;\nSELECT event_store.append('feed', $stream, 'Lost', '{}');\nROLLBACK TO a;\n\\sleep 5 ms\nINSERT INTO feed (stream, type, data) SELECT $stream, 'Inserted', '{}' FROM generate_series(1, 3);\nCOMMIT;\n");

my ($reader_out, $reader_err) = ('', '');
my $reader = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'CALL follow()' ], '>', \$reader_out, '2>', \$reader_err);
my ($result, $stdout, $stderr) = (undef, '', '');
IPC::Run::run([ 'pgbench', '-n', '-c', 10, '-j', 1, '-T', 6, '-f', "$dir/plain.sql\@6", '-f', "$dir/slow.sql\@2", '-f', "$dir/lost.sql\@1", '-f', "$dir/half.sql\@1", $node->connstr('postgres') ],
	'>', \$stdout, '2>', \$stderr);
unlike($stderr, qr/ERROR|aborted/, 'writers without an error');
$node->safe_psql('postgres', 'CREATE TABLE writers_are_done ()');
$reader->finish;
like($reader_err, qr/\d+ polls/, 'the reader has come to the end') or diag($reader_err);
note($reader_err, $stdout, $node->safe_psql('postgres', 'SELECT count(*), max(position) FROM feed'));
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM feed'), '>', 1000, 'much has been written');
is($node->safe_psql('postgres', 'SELECT count(*) FROM feed f LEFT JOIN got g USING (position) WHERE g IS NULL'), 0, 'the reader has missed nothing');
is($node->safe_psql('postgres', 'SELECT count(*) FROM got g LEFT JOIN feed f USING (position) WHERE f IS NULL'), 0, 'it has got nothing that is not there');
is($node->safe_psql('postgres', 'SELECT count(*) FROM (SELECT position < lag(position) OVER (ORDER BY n) AS falls FROM got) s WHERE falls'), 0, 'it has got all in order');
is($node->safe_psql('postgres', 'SELECT DISTINCT min(version) = 1 AND max(version) = count(*) FROM feed GROUP BY stream'), 't', 'versions without gap');

# Two databases whose event tables have the same OID do not know of each other.
$node->safe_psql('template1', 'CREATE DATABASE twin TEMPLATE postgres');
my $in_flight = $node->background_psql('postgres');
is($in_flight->query_safe(q{BEGIN; SELECT first_version FROM event_store.append('ev', 'twin-1', 'Here', '{}', expected_version => 0)}), 1, 'an append in one database');
is($node->safe_psql('twin', q{SET lock_timeout = '10s'; SELECT first_version FROM event_store.append('ev', 'twin-1', 'There', '{}', expected_version => 0)}), 1,
	'the same stream in the other one is not locked');
is($node->safe_psql('twin', q{SELECT type FROM event_store.read_category('ev', 'twin')}), 'There', 'nor does its feed wait');
is($node->safe_psql('twin', 'SELECT count(*) FROM event_store.mark_holders'), 0, 'nor does its view of mark holders show the first one');
is($node->safe_psql('postgres', 'SELECT event_table, pid IS NOT NULL FROM event_store.mark_holders'), 'ev|t', 'which is shown where it is');
$in_flight->query_safe('COMMIT');
$in_flight->quit;

log_is_clean($node);
$node->stop;
done_testing();
