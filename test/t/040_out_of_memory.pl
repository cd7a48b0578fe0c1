# Out of memory: every allocation of the library fails once, in turn, in each
# scenario, in a new session and within a savepoint of one that has seen it all.
# Each time the session lives, nothing is there by half, no lock is left, and
# the same statement then works.
#
# Needs the build with allocations that fail.  OUT_OF_MEMORY_STEPS is how many of
# them fail in a scenario with more: the first ones and a sample of the others.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $steps = $ENV{OUT_OF_MEMORY_STEPS} || 20;
my $node = new_server('out_of_memory', hooks => 1, conf => <<'EOT');
session_preload_libraries = 'event_store'
max_prepared_transactions = 5
fsync = off
autovacuum = off
EOT
my $dir = PostgreSQL::Test::Utils::tempdir;

$node->safe_psql('postgres', <<'EOT');
SET client_min_messages = warning;
SELECT event_store.create_event_table('ev');
SELECT event_store.append_batch('ev', 'old-' || i, ARRAY['T', 'U', 'T'], ARRAY['{"a": 1}', '{"b": {"c": 2}}', '[3]']::jsonb[], correlation_id => 'c' || i) FROM generate_series(1, 10) i;
SELECT event_store.append('ev', 'old-1', 'T', '{}', event_id => '00000000-0000-0000-0000-000000000001');

SELECT event_store.create_event_table('columns');
ALTER TABLE columns ADD COLUMN n serial, ADD COLUMN upper text GENERATED ALWAYS AS (upper(type)) STORED, ADD CHECK (n > 0), ADD UNIQUE (n);
CREATE TABLE audit (n bigint);
CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.metadata := '{"by": "trigger"}'; RETURN NEW; END $$;
CREATE FUNCTION after_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit SELECT count(*) FROM new; RETURN NULL; END $$;
CREATE TRIGGER a_before BEFORE INSERT ON columns FOR EACH ROW EXECUTE FUNCTION before_row();
CREATE TRIGGER b_after AFTER INSERT ON columns REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION after_all();

CREATE ROLE tenant;
SELECT event_store.create_event_table('secured');
SELECT event_store.append('secured', 'tenant-1', 'T', '{}'), event_store.append('secured', 'other-1', 'T', '{}');
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON secured USING (stream LIKE 'tenant-%');
GRANT SELECT, INSERT ON secured TO tenant;

SELECT event_store.create_event_table('raised');
SELECT event_store.append('raised', 'r-1', 'T', '{"a": 1}');
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT data || '{"up": true}' $$;
SELECT event_store.register_upcaster('raised', 'T', 1, 'up(jsonb)');

CREATE FUNCTION counted(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN to_jsonb(state::int + 1); END $$;
SELECT event_store.create_aggregate('merged'), event_store.create_aggregate('counted', 'counted(jsonb, event_store.event)', '0', 2);

SELECT event_store.create_event_table('small');
SELECT event_store.append_batch('small', 's-' || i, ARRAY['T', 'U'], ARRAY['{"a": 1}', '{"b": {"c": 2}}']::jsonb[]) FROM generate_series(1, 3) i;
CREATE TABLE totals (type text PRIMARY KEY, n bigint);
CREATE TABLE seen (position bigint);
CREATE FUNCTION handle(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (event.position); END $$;
SELECT event_store.create_projection('totals', 'small', 'INSERT INTO totals SELECT type, count(*) FROM events GROUP BY type ON CONFLICT (type) DO UPDATE SET n = totals.n + EXCLUDED.n', tables => '{totals}');
SELECT event_store.create_projection('seen', 'small', function => 'handle(event_store.event)', partitions => 2, on_error => 'park');
CREATE TABLE twice (position bigint CHECK (position < 0));
SELECT event_store.create_projection('twice', 'raised', 'INSERT INTO twice SELECT position FROM events', on_error => 'park');

SELECT event_store.create_event_table('inlined');
CREATE TABLE mirror (position bigint);
SELECT event_store.create_projection('mirror', 'inlined', 'INSERT INTO mirror SELECT position FROM events', mode => 'inline');
EOT

# All that a scenario may change: the rows of each table (those of an event table
# never change), and the catalogs.
$node->safe_psql('postgres', <<'EOT');
CREATE FUNCTION all_there_is() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	name text; one text; result text := '';
BEGIN
	FOR name IN SELECT oid::regclass FROM pg_class
		WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'event_store'::regnamespace) ORDER BY oid
	LOOP
		IF name IN ('ev', 'columns', 'audit', 'secured', 'inlined', 'mirror') THEN
			EXECUTE format('SELECT count(*) FROM %s', name) INTO one;
		ELSE
			EXECUTE format('SELECT count(*) || ''/'' || coalesce(sum(hashtext(t::text)), 0) FROM %s t', name) INTO one;
		END IF;
		result := result || name || ':' || one || ' ';
	END LOOP;
	RETURN result || concat_ws(' ', (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_attribute WHERE NOT attisdropped),
		(SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_depend), (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_prepared_xacts));
END $$;
EOT

my $one = q{SELECT first_version > 0 FROM event_store.append('%s', 'new-' || gen_random_uuid(), 'T', '{"a": 1}', metadata => '{}', correlation_id => 'x')};

# Name, statements, statements that take them back; and: before and after all
# runs; in_savepoint => 0 where they are more than one transaction, or end one; parts => 1
# where a failure leaves what came before; caught => 1 where they catch it; all => 1
# where every allocation fails, however many.
my @scenarios = (
	[ 'append', sprintf($one, 'ev') ],
	[ 'append, expected version', q{SELECT first_version > 3 FROM event_store.append('ev', 'old-2', 'T', '{}', expected_version => event_store.stream_version('ev', 'old-2'))} ],
	[ 'append, duplicate', q{SELECT first_version, duplicate FROM event_store.append('ev', 'old-1', 'T', '{}', event_id => '00000000-0000-0000-0000-000000000001')}, '' ],
	[ 'append, new id', q{SELECT first_version > 3 FROM event_store.append('ev', 'old-3', 'T', '{}', event_id => gen_random_uuid())} ],
	[ 'append, notified', sprintf("SET event_store.notify = 'transaction'; $one", 'ev') ],
	[ 'append, no worker to be told', sprintf("SET event_store.notify = 'off'; $one", 'ev') ],
	[ 'append_batch', q{SELECT first_version > 3 FROM event_store.append_batch('ev', 'old-4', '{A,B,C}', '{1,2,3}', event_ids => ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()], metadata => '{"{}",null,"{}"}', occurred_at => '{now,now,now}', schema_versions => '{1,2,3}')} ],
	[ 'append_json', q{SELECT first_version > 3 FROM event_store.append_json('ev', 'old-5', '[{"type": "A", "data": {"x": [1, {"y": 2}]}, "metadata": {"m": 1}, "correlation_id": "c"}, {"type": "B", "data": 0}]')} ],
	[ 'append_streams', q{SELECT count(*) FROM event_store.append_streams('ev', '[{"stream": "old-6", "events": [{"type": "A", "data": 1}]}, {"stream": "old-7", "expected_version": -4, "events": [{"type": "A", "data": 1}, {"type": "B", "data": 2}]}]', checks => '[{"stream": "none-1", "expected_version": 0}, {"stream": "old-8", "expected_version": 3}]')} ],
	[ 'append, user columns and triggers', sprintf($one, 'columns') ],
	[ 'append_batch, user columns and triggers', q{SELECT first_version > 0 FROM event_store.append_batch('columns', 'new-' || gen_random_uuid(), '{A,B}', '{1,2}')} ],
	[ 'row-level security', q{BEGIN; SET LOCAL ROLE tenant; SELECT first_version > 0 FROM event_store.append('secured', 'tenant-2', 'T', '{}'); SELECT count(*) FROM event_store.read_stream('secured', 'tenant-1'); SELECT count(*) > 0 FROM event_store.read_all('secured'); COMMIT}, '', in_savepoint => 0 ],
	[ 'INSERT', q{INSERT INTO ev (stream, type, data) SELECT 'old-9', 'T', to_jsonb(i) FROM generate_series(1, 3) i} ],
	[ 'INSERT RETURNING', q{INSERT INTO columns (stream, version, type, data) VALUES ('new-' || gen_random_uuid(), 1, 'T', '{}') RETURNING version, metadata}, '' ],
	[ 'COPY', qq{\\copy ev (stream, type, data) from '$dir/copy.data'} ],
	[ 'savepoints', sprintf("BEGIN; SAVEPOINT a; $one; ROLLBACK TO a; $one; RELEASE a; $one; COMMIT", 'ev', 'ev', 'ev'), '', in_savepoint => 0, parts => 1 ],
	[ 'two tables, one transaction', sprintf("BEGIN; $one; $one; COMMIT", 'ev', 'columns'), '', in_savepoint => 0 ],
	[ 'PREPARE and COMMIT PREPARED', sprintf("BEGIN; $one; PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'", 'ev'), '', in_savepoint => 0 ],
	[ 'table locked as a whole', sprintf("BEGIN; LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE; $one; COMMIT", 'ev'), '', in_savepoint => 0 ],
	[ 'a subtransaction that catches it', q{DO $$ BEGIN BEGIN PERFORM event_store.append('ev', 'old-10', 'T', '{}'); EXCEPTION WHEN out_of_memory THEN PERFORM event_store.append('ev', 'old-10', 'Caught', '{}'); END; END $$}, '', caught => 1 ],
	[ 'read_stream', q{SELECT md5(string_agg(e::text, '' ORDER BY version)) FROM event_store.read_stream('raised', 'r-1') e; SELECT version FROM event_store.read_stream('ev', 'old-1', direction => 'backward')}, '' ],
	[ 'read_all', q{SELECT count(*), md5(string_agg(e::text, '' ORDER BY position)) FROM event_store.read_all('raised', types => '{T,U}') e}, '' ],
	[ 'read_category', q{SELECT count(*), md5(string_agg(e::text, '' ORDER BY position)) FROM event_store.read_category('raised', 'r') e}, '' ],
	[ 'read_batch', q{SELECT * FROM event_store.read_batch('raised'); SELECT checkpoint, md5(events::text) FROM event_store.read_batch('inlined', streams => '{a,b}', categories => '{a}', correlation_id => 'x', raw => true)}, '' ],
	[ 'by id, by time, last, mark', q{SELECT version FROM event_store.read_event('raised', (SELECT event_id FROM raised LIMIT 1)); SELECT event_store.position_at('raised', '-infinity'), event_store.high_water_mark('raised'), event_store.stream_version('raised', 'r-1'); SELECT version FROM event_store.last_event('raised', 'r-1', type => 'T'); SELECT stream FROM event_store.streams('raised', 'r')}, '' ],
	[ 'load', q{SELECT * FROM event_store.load('raised', 'r-1', 'merged'); SELECT version, state FROM event_store.load('raised', 'r-1', 'counted', as_of => 'infinity'); SELECT * FROM event_store.load('raised', 'r-1', 'counted', occurred_as_of => 'infinity')}, '' ],
	[ 'load_category', q{SELECT * FROM event_store.load_category('raised', 'r', 'merged'); SELECT * FROM event_store.load_category('raised', 'r', 'counted')}, '' ],
	[ 'fold', q{SELECT event_store.fold(e, 'counted') FROM event_store.read_stream('raised', 'r-1') e; SELECT event_store.fold(e, 'merged') FROM event_store.read_all('raised') e; SELECT * FROM event_store.diff_state('raised', 'r-1', 'merged')}, '' ],
	[ 'take_snapshots', q{SELECT event_store.take_snapshots('small', 'counted', 's')}, 'DELETE FROM event_store.snapshots' ],
	[ 'save, load, verify and prune snapshots', q{BEGIN; SELECT event_store.save_snapshot('raised', 'r-1', 1, '{"s": 1}', 'merged'); SELECT version FROM event_store.load_snapshot('raised', 'r-1', 'merged'); SELECT snapshot_version FROM event_store.read_stream_from_snapshot('raised', 'r-1', 'merged'); SELECT count(*) FROM event_store.verify_snapshots('raised', 'merged'); SELECT event_store.prune_snapshots('raised'); COMMIT}, 'DELETE FROM event_store.snapshots', in_savepoint => 0 ],
	[ 'create_aggregate and drop_aggregate', q{BEGIN; SELECT event_store.create_aggregate('another', 'counted(jsonb, event_store.event)', '0'); SELECT event_store.drop_aggregate('another'); COMMIT}, '', in_savepoint => 0 ],
	[ 'create_event_table', q{SELECT event_store.create_event_table('made')}, 'DROP TABLE made' ],
	[ 'drop_event_table', q{SELECT event_store.drop_event_table('made')}, q{SELECT event_store.create_event_table('made')}, before => q{SELECT event_store.create_event_table('made')}, after => 'DROP TABLE made' ],
	[ 'guard and check_guards', q{SELECT event_store.guard('ev'); SELECT event_store.check_guards('ev') IS NULL} ],
	[ 'make_append_only', q{BEGIN; CREATE TABLE fixed (n int); SELECT event_store.make_append_only('fixed'); COMMIT}, 'DROP TABLE fixed', in_savepoint => 0 ],
	[ 'ALTER TABLE', q{ALTER TABLE ev ADD COLUMN extra int}, 'ALTER TABLE ev DROP COLUMN extra' ],
	[ 'ALTER TABLE, refused', q{DO $$ BEGIN ALTER TABLE ev DISABLE TRIGGER ALL; EXCEPTION WHEN SQLSTATE 'SE005' THEN NULL; END $$} ],
	[ 'DROP TABLE', q{DROP TABLE made}, q{SELECT event_store.create_event_table('made')}, before => q{SELECT event_store.create_event_table('made')}, after => 'DROP TABLE made' ],
	[ 'create_projection', q{SELECT event_store.create_projection('another', 'ev', 'SELECT 1 FROM events', partitions => 2)}, q{SELECT event_store.drop_projection('another')} ],
	[ 'create_projection, inline', q{SELECT event_store.create_projection('another', 'inlined', 'INSERT INTO seen SELECT position FROM events', mode => 'inline')}, q{SELECT event_store.drop_projection('another')} ],
	[ 'alter_projection and drop_projection', q{BEGIN; SELECT event_store.create_projection('another', 'ev', 'SELECT 1 FROM events'); SELECT event_store.alter_projection('another', partitions => 3); SELECT event_store.pause_projection('another'); SELECT event_store.resume_projection('another'); SELECT event_store.drop_projection('another'); COMMIT}, '', in_savepoint => 0 ],
	[ 'run_projection, statement', q{SELECT events, parked FROM event_store.run_projection('totals')}, q{SELECT event_store.reset_projection('totals'); TRUNCATE totals}, caught => 1 ],
	[ 'run_projection, function', q{SELECT events, parked FROM event_store.run_projection('seen')}, q{SELECT event_store.reset_projection('seen'); TRUNCATE seen}, caught => 1 ],
	[ 'run_projection, parked', q{BEGIN; SELECT parked FROM event_store.run_projection('twice'); SELECT event_store.retry_parked('twice'); SELECT event_store.drop_parked('twice'); COMMIT}, q{SELECT event_store.reset_projection('twice')}, in_savepoint => 0, caught => 1 ],
	[ 'rebuild', q{BEGIN; SELECT event_store.rebuild_projection('totals', 'shadow'); SELECT batches > 0 FROM event_store.run_projection('totals'); COMMIT}, q{SELECT event_store.reset_projection('totals'); TRUNCATE totals}, in_savepoint => 0, caught => 1 ],
	[ 'rebuild, cancelled', q{BEGIN; SELECT event_store.rebuild_projection('totals', 'shadow'); SELECT event_store.cancel_rebuild('totals'); COMMIT}, '', in_savepoint => 0 ],
	[ 'dry_run', q{SELECT events, errors FROM event_store.dry_run_projection('totals'); SELECT failed FROM event_store.dry_run_projection('twice')}, '', caught => 1, all => 1 ],
	[ 'check_projection', q{SELECT same FROM event_store.check_projection('totals')}, '', caught => 1 ],
	[ 'inline projection', sprintf($one, 'inlined') ],
	[ 'register and unregister', q{BEGIN; SELECT event_store.register_upcaster('raised', 'T', 2, 'up(jsonb)'); SELECT data FROM event_store.read_stream('raised', 'r-1'); SELECT count(*) FROM event_store.check_upcasters('raised'); SELECT event_store.unregister_upcaster('raised', 'T', 2); SELECT event_store.register_event_type('raised', 'T', 'text'); SELECT event_store.unregister_event_type('raised', 'T'); COMMIT}, '', in_savepoint => 0 ],
	[ 'wait_for_events', q{SELECT event_store.wait_for_events('ev', after => 1, timeout => '1 s') > 1; SELECT event_store.wait_for_events('ev', after => (SELECT max(position) FROM ev), timeout => '1 ms') > 1}, '' ],
	[ 'wait_for_projection', q{SELECT event_store.wait_for_projection('totals', 0), event_store.wait_for_projection('mirror', timeout => '1 s')}, '' ],
	[ 'views', q{SELECT count(*) FROM event_store.feeds; SELECT count(*) FROM event_store.projections; SELECT count(*) FROM event_store.mark_holders; SELECT count(*) FROM event_store.event_tables; SELECT count(*) FROM event_store.event_types; SELECT count(*) FROM event_store.upcasters; SELECT count(*) FROM event_store.parked_events; SELECT event_store.channel('ev') LIKE 'event_store_%'; SELECT count(*) FROM event_store.event_catalog('raised')}, '' ],
	[ 'mark_holders of our own', sprintf("BEGIN; $one; SELECT count(*) FROM event_store.mark_holders; SELECT count(*) FROM event_store.read_all('ev', after => (SELECT max(position) - 1 FROM ev)); COMMIT", 'ev'), '', in_savepoint => 0 ]);

append_to_file("$dir/copy.data", join '', map { "copied-$_\tT\t{\"n\": $_}\n" } 1 .. 3);

# Runs a script of psql in one process.  All it has to say comes in its order by
# way of \warn and the errors.
sub run_psql
{
	my ($script) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-v', 'VERBOSITY=verbose', '-v', 'SHOW_CONTEXT=never', '-f', '-' ],
		'<', \$script, '>', \$out, '2>', \$err);
	return ($out, $err);
}


# Which allocations fail: the first ones, and others all over the rest.
sub chosen
{
	my ($count, $all) = @_;

	return (1 .. $count) if $all || $count <= $steps;
	my $first = int($steps / 2);
	my $rest = $steps - $first;
	return (1 .. $first, map { $first + int(($count - $first) * $_ / $rest) } 1 .. $rest);
}

my $look_at_locks = <<'EOT';
SELECT count(*) AS locks FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid' AND mode <> 'AccessShareLock' \gset
\warn locks :locks
EOT
my $look = <<'EOT' . $look_at_locks;
SELECT all_there_is() AS state \gset
\warn state :state
EOT
my $disarm = <<'EOT';
\echo failed
SELECT current_setting('event_store.test_fail_alloc') AS left \gset
\warn left :left
SET event_store.test_fail_alloc = 0;
EOT

# In a new session.  What was prepared is no longer the statement's affair.
sub in_new_session
{
	my ($n, $sql, $undo) = @_;

	return <<"EOT";
\\c
\\warn step $n
\\echo step $n
$look SET client_min_messages = error;
SET event_store.test_fail_alloc = $n;
$sql;
ROLLBACK;
$disarm SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts \\gexec
$look \\warn again
\\echo again
$sql;
\\echo end
$undo;
\\warn end
EOT
}

# The same for what is one transaction: to look at everything takes a new session most of its
# time, so it takes all back, and we look when all have ended.
sub in_new_transaction
{
	my ($n, $sql) = @_;

	return <<"EOT";
\\c
\\warn step $n
\\echo step $n
SET client_min_messages = error;
SET event_store.test_fail_alloc = $n;
$sql;
$disarm $look_at_locks \\warn again
\\echo again
BEGIN;
$sql;
ROLLBACK;
\\echo end
\\warn end
EOT
}

# The same in a savepoint of an old session, and once more behind it.
sub in_savepoint
{
	my ($n, $sql) = @_;

	return <<"EOT";
\\warn step $n
\\echo step $n
$look SET client_min_messages = error;
BEGIN;
SET event_store.test_fail_alloc = $n;
SAVEPOINT s;
$sql;
SELECT current_setting('event_store.test_fail_alloc') AS left \\gset
ROLLBACK TO s;
$disarm SELECT all_there_is() AS state \\gset
\\warn state :state
\\warn again
\\echo again
$sql;
ROLLBACK;
$look \\warn end
\\echo end
EOT
}

sub difference
{
	my @words = map { [ split / / ] } @_;

	return join ', ', map { "$words[0][$_] -> $words[1][$_]" } grep { $words[0][$_] ne $words[1][$_] } 0 .. $#{ $words[0] };
}

my $unreached;    # steps in which nothing failed: not each run allocates as often

# What went wrong in one step.
sub problems
{
	my ($step, $output, $expected, %is) = @_;
	my ($first, $again) = $step =~ /^(.*)^again\n(.*)^end\n/ms or return 'it did not come to its end: ' . $step;
	my ($before, $result) = $output =~ /^\d+\n(.*)^failed\n.*^again\n(.*)^end\n/ms;
	my @errors = $first =~ /(?:ERROR|FATAL|PANIC):  (\w{5}: .*)/g;
	my @states = $step =~ /^state (.*)/mg;
	my @locks = $step =~ /^locks (.*)/mg;
	my ($left) = $first =~ /^left (\d+)/m;
	my @bad;

	return "no statement after the failure: $first" unless defined $left;
	$unreached++ if $left > 0;
	push @bad, "the first error is $errors[0]" if @errors && $errors[0] !~ /^(?:53200|SE007: projection "\w+" failed at position \d+): out of memory/;
	push @bad, 'it has failed, and no error was raised' if $left == 0 && !@errors && !$is{caught};
	push @bad, "it has not failed, but there is an error: $errors[0]" if $left > 0 && @errors;
	push @bad, 'half is there: ' . difference(@states[0, 1]) if @states && @errors && !$is{parts} && $states[0] ne $states[1];
	push @bad, 'after the end: ' . difference(@states[0, 2]) if @states > 2 && $states[0] ne $states[2];
	push @bad, "locks: @locks" if grep { $_ ne '0' } @locks;
	push @bad, "then: $1" if $again =~ /((?:ERROR|FATAL|PANIC|WARNING):.*)/;
	push @bad, "it has returned: $before" if !@errors && $before ne $expected;
	push @bad, "then it returned: $result" if @errors && $result ne $expected;
	return @bad;
}

sub run_steps
{
	my ($make, $numbers, $sql, $undo, $expected, %is) = @_;
	my ($out, $err) = run_psql(join '', map { $make->($_, $sql, $undo) } @$numbers);
	my @outputs = split /^step (?=\d+$)/m, $out;
	my @steps = split /^step (?=\d+$)/m, $err;
	my @bad;

	shift @outputs;
	shift @steps;
	push @bad, scalar(@steps) . ' of ' . scalar(@$numbers) . " steps: $err" if @steps != @$numbers;
	for my $i (0 .. $#steps)
	{
		push @bad, map { "allocation $numbers->[$i]: $_" } problems($steps[$i], $outputs[$i] // '', $expected, %is);
	}
	return @bad;
}

my ($in_all, $failed) = (0, 0);
for my $scenario (@scenarios)
{
	my ($name, $sql, $undo, %is) = @$scenario;
	next if $ENV{OUT_OF_MEMORY_ONLY} && $name !~ /$ENV{OUT_OF_MEMORY_ONLY}/;
	$undo = '' unless defined $undo;
	$node->safe_psql('postgres', $is{before}) if $is{before};

	my ($out, $err) = run_psql("SET event_store.test_fail_alloc = 2147483647;\n$sql;\nSHOW event_store.test_fail_alloc;\nSET event_store.test_fail_alloc = 0;\n$undo;\n");
	my ($expected, $left) = $out =~ /^(.*?)^(21474\d+)$/ms or die "$name: $err";
	die "$name: $err" if $err =~ /ERROR/;
	my $count = 2147483647 - $left;
	my @numbers = chosen($count, $is{all});
	my @bad;
	if (defined $is{in_savepoint} || $is{caught})
	{
		@bad = run_steps(\&in_new_session, \@numbers, $sql, $undo, $expected, %is);
	}
	else
	{
		my $before = $node->safe_psql('postgres', 'SELECT all_there_is()');
		$unreached = 0;
		@bad = run_steps(\&in_new_transaction, \@numbers, $sql, $undo, $expected, %is);
		my $after = $node->safe_psql('postgres', 'SELECT all_there_is()');
		push @bad, 'something is there: ' . difference($before, $after) if $before ne $after && $unreached == 0;
		push @bad, run_steps(\&in_savepoint, \@numbers, $sql, $undo, $expected, %is);
	}
	$in_all += $count;
	$failed += @numbers;
	is(join("\n", splice(@bad, 0, 5)), '', "$name: " . scalar(@numbers) . " of $count allocations fail");
	$node->safe_psql('postgres', $is{after}) if $is{after};
}
note("$failed of $in_all allocations of all scenarios have failed");

log_is_clean($node);
$node->stop;
done_testing();
