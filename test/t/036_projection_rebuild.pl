# Rebuilds in the background while appends go on: they go on after a restart, can be cancelled, stop where the handler
# fails, and readers see the old table or the new one.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PGOPTIONS} = '-c statement_timeout=100s';

my $node = new_server('rebuild', no_extension => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
max_prepared_transactions = 5
max_worker_processes = 20
autovacuum = off
restart_after_crash = off
EOT

# 100,000 events.  A rebuild stops in the midst of them, at a gate, while a prepared transaction has it locked, and
# fails there while there is a table named broken.  What is live has nothing to do with that.
$node->safe_psql('postgres', <<'EOT');
CREATE ROLE app LOGIN;
GRANT CREATE ON SCHEMA public TO app;
GRANT CREATE ON DATABASE postgres TO app;
CREATE EXTENSION event_store;
SELECT event_store.create_event_table('ev');
GRANT SELECT, INSERT, TRIGGER ON ev TO app;
SELECT FROM generate_series(1, 100) b, event_store.append_batch('ev', 's-' || b % 40, array_fill('T'::text, '{1000}'), array_fill(to_jsonb(b), '{1000}'));
SET ROLE app;
CREATE TABLE gate ();
CREATE FUNCTION gate(newest bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('search_path') LIKE '%\_rebuild,%' AND newest > 50000 THEN
		PERFORM FROM public.gate;
		IF to_regclass('public.broken') IS NOT NULL THEN
			RAISE 'broken' USING ERRCODE = 'PX001';
		END IF;
	END IF;
END $$;
CREATE TABLE model (stream text PRIMARY KEY, events bigint, total bigint);
CREATE TABLE inline_model (LIKE model INCLUDING ALL);
CREATE VIEW totals AS SELECT sum(total) FROM model;
EOT
my $statement = 'WITH written AS (INSERT INTO %1$s AS m SELECT stream, count(*), sum(data::int) FROM events GROUP BY stream
	ON CONFLICT (stream) DO UPDATE SET events = m.events + excluded.events, total = m.total + excluded.total RETURNING 1)
	SELECT gate(max(position)) FROM events';
my $fold = 'SELECT stream, count(*), sum(data::int) FROM ev GROUP BY stream';
sub as_app { my ($sql) = @_; return $node->safe_psql('postgres', "SET ROLE app; $sql"); }
sub create
{
	my ($name, $mode) = @_;
	as_app(qq{SELECT event_store.create_projection('$name', 'ev', statement => \$\$} . sprintf($statement, $name)
		  . qq{\$\$, tables => '{$name}', mode => '$mode', batch_size => 2000, max_attempts => 2, retry_delay => '1 ms')});
	return;
}
create('model', 'async');
create('inline_model', 'inline');
caught_up($node, 'model', 'a projection that is live');

sub close_gate { $node->safe_psql('postgres', q{BEGIN; LOCK TABLE gate; PREPARE TRANSACTION 'gate'}); return; }
sub open_gate { $node->safe_psql('postgres', q{COMMIT PREPARED 'gate'}); return; }
sub spoil { my ($name) = @_; return as_app("UPDATE $name SET events = events + 1000000"); }
sub rebuilding { my ($condition, $text, $name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; projection_is($node, $name // 'model', $condition, $text); return; }
sub goes_on
{
	my $newest = $node->safe_psql('postgres', 'SELECT max(position) FROM ev');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	rebuilding("position > $newest", 'what is live goes on');
	return;
}

# A reader never sees less than all streams, nor one half of the old table and one of the new.
sub reader
{
	my ($table) = @_;
	my $script = <<"EOT";
DO \$\$
DECLARE r record;
BEGIN
	WHILE to_regclass('enough') IS NULL LOOP
		SELECT count(*) AS n, count(*) FILTER (WHERE events > 1000000) AS old INTO r FROM $table;
		IF r.n <> 40 OR r.old NOT IN (0, 40) THEN
			RAISE 'a reader sees % rows of $table, % of them old', r.n, r.old;
		END IF;
		COMMIT;
	END LOOP;
END \$\$;
EOT
	return IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $script ], '>', '/dev/null', '2>', '/dev/null');
}

# A rebuild under load that is watched.
spoil('model');
my @clients = (writers($node, 2, 'ev'), reader('model'));
close_gate();
as_app(q{SELECT event_store.rebuild_projection('model')});
rebuilding('rebuild_position >= 48000', 'a rebuild begins');
is($node->safe_psql('postgres', q{SELECT status, rebuild_percent BETWEEN 10 AND 60, rebuild_eta BETWEEN '1 ms' AND '1 h' FROM event_store.projections WHERE name = 'model'}), 'running|t|t', 'the view shows how far it is, and for how long it will go on');
goes_on();
is($node->safe_psql('postgres', 'SELECT count(*) FROM model WHERE events > 1000000'), 40, 'and is what it was');
refused($node, q{SELECT event_store.rebuild_projection('model')}, '55000', 'is being rebuilt already', 'there is one rebuild at a time');
open_gate();
rebuilding('rebuild_position IS NULL', 'it comes to its end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM model WHERE events > 1000000'), 0, 'the table is the new one');
goes_on();
is(finish_writers($node, 'postgres', @clients), 0, 'appenders and readers have noticed nothing');
caught_up($node, 'model', 'it catches up');
is_fold($node, 'TABLE model', $fold, 'every event has been handled once');
is($node->safe_psql('postgres', q{SELECT sum = (SELECT sum(data::int) FROM ev) FROM totals}), 't', 'a view sees the new table');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'model_rebuild'}), 0, 'the shadows are gone');

# Restarts in the middle.
spoil('model');
close_gate();
as_app(q{SELECT event_store.rebuild_projection('model')});
for my $how ('fast', 'immediate')
{
	my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_store projector' AND wait_event = 'relation'};
	eventually($node, $waits, 'a rebuild in the midst of a batch');
	my $position = $node->safe_psql('postgres', q{SELECT rebuild_position FROM event_store.projections WHERE name = 'model'});
	cmp_ok($position, '>', 0, 'it has come far');
	$node->stop($how);
	$node->start;
	eventually($node, $waits, "after a restart ($how) it goes on");
	cmp_ok($node->safe_psql('postgres', q{SELECT rebuild_position FROM event_store.projections WHERE name = 'model'}), '>=', $position, 'where it was');
}
@clients = (writers($node, 2, 'ev'), reader('model'));
open_gate();
rebuilding('rebuild_position IS NULL', 'it comes to its end');
is(finish_writers($node, 'postgres', @clients), 0, 'appenders and readers have noticed nothing');
caught_up($node, 'model', 'it catches up');
is_fold($node, 'TABLE model', $fold, 'every event has been handled once');

# Cancelled.
spoil('model');
@clients = (writers($node, 2, 'ev'), reader('model'));
close_gate();
as_app(q{SELECT event_store.rebuild_projection('model', 'my_rebuild')});
rebuilding('rebuild_position >= 48000', 'a rebuild in the middle');
{
	my $cancel = $node->background_psql('postgres');
	$cancel->query_until(qr/now/, "\\echo now\nSELECT event_store.cancel_rebuild('model');\n");
	eventually($node, q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%cancel_rebuild%' AND wait_event_type = 'Lock' AND backend_type = 'client backend')}, 'cancel_rebuild() waits for the batch');
	open_gate();
	$cancel->quit;
}
rebuilding('rebuild_position IS NULL', 'a rebuild can be cancelled');
goes_on();
is($node->safe_psql('postgres', 'SELECT count(*) FROM model WHERE events > 1000000'), 40, 'the table is the old one');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'my_rebuild'}), 0, 'the shadows are gone');

# It fails.
as_app(q{CREATE TABLE broken ()});
my $offset = -s $node->logfile;
as_app(q{SELECT event_store.rebuild_projection('model')});
rebuilding(q{status = 'failed'}, 'a handler that fails stops the rebuild');
is($node->safe_psql('postgres', q{SELECT last_error_sqlstate, last_error, last_error_position > 50000, attempts, rebuild_position < last_error_position, rebuild_percent < 60 FROM event_store.projections WHERE name = 'model'}), 'PX001|broken|t|2|t|t', 'the view tells why');
like(slurp_file($node->logfile, $offset), qr/WARNING:  .*projection "model".*failed at position 5\d{4}, attempt 2 of 2: broken/, 'so does the log');
goes_on();
as_app(q{DROP TABLE broken; SELECT event_store.resume_projection('model')});
rebuilding('rebuild_position IS NULL', 'when mended and resumed it comes to its end');
is(finish_writers($node, 'postgres', @clients), 0, 'appenders and readers have noticed nothing');
caught_up($node, 'model', 'it catches up');
is_fold($node, 'TABLE model', $fold, 'every event has been handled once');

# Inline.
spoil('inline_model');
@clients = (writers($node, 2, 'ev'), reader('inline_model'));
as_app(q{SELECT event_store.rebuild_projection('inline_model')});
rebuilding('rebuild_position IS NULL', 'an inline projection is rebuilt under load', 'inline_model');
is(finish_writers($node, 'postgres', @clients), 0, 'appenders and readers have noticed nothing');
is_fold($node, 'TABLE inline_model', $fold, 'every event has been handled once');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT status, ' ') FROM event_store.projections}), 'ready running', 'all goes on');

log_is_clean($node);
$node->stop;
done_testing();
