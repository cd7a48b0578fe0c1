-- dry_run_projection() and check_projection(): what they find out, and that they
-- leave nothing behind.
SET client_min_messages = warning;
SELECT plan(53);

\ir include/error_of.sql
\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
CREATE TABLE counts (stream text PRIMARY KEY, events bigint NOT NULL);
CREATE TABLE log (position bigint, note text);
\set counting 'INSERT INTO counts SELECT stream, count(*) FROM events GROUP BY stream ON CONFLICT (stream) DO UPDATE SET events = counts.events + excluded.events; INSERT INTO log SELECT position, type FROM events'
SELECT event_store.append('orders', 'a-' || i % 3, CASE WHEN i IN (4, 7) THEN 'Bad' ELSE 'T' END, '{}', event_id => format('00000000-0000-0000-0000-%s', lpad(i::text, 12, '0'))::uuid) FROM generate_series(1, 10) i \g /dev/null
CREATE FUNCTION pg_temp.dry(name text, arguments text DEFAULT '') RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.rows_of(format('SELECT events, batches, failed, duration > ''0'' AS d FROM event_store.dry_run_projection(%L%s)', name, arguments)) $$;
CREATE FUNCTION pg_temp.everything() RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', (SELECT count(*) FROM counts), (SELECT count(*) FROM log), (SELECT string_agg(format('%s:%s:%s:%s', projection, rebuild, partition, position), ',' ORDER BY projection, partition) FROM event_store.projection_checkpoints),
    (SELECT count(*) FROM event_store.projection_parked), (SELECT count(*) FROM pg_class WHERE relname ~ '^(counts$|log$|first_replay)'), current_user, current_setting('search_path')) $$;

-- Dry runs.
SELECT event_store.create_projection('counts', 'orders', :'counting', mode => 'manual', batch_size => 4) \g /dev/null
SELECT pg_temp.everything() AS everything \gset
SELECT is(pg_temp.dry('counts'), '(10,3,0,t)', 'events, batches, failed, and a duration');
SELECT is(pg_temp.dry('counts', ', 7'), '(3,1,0,t)', 'after a position');
SELECT is(pg_temp.dry('counts', ', max_count => 5'), '(5,2,0,t)', 'so many events');
SELECT is(pg_temp.dry('counts', ', 8, 1'), '(1,1,0,t)', 'both');
SELECT is(pg_temp.dry('counts', ', 0, 0'), '(0,0,0,t)', 'none');
SELECT is((SELECT errors FROM event_store.dry_run_projection('counts')), '[]', 'no errors');
SELECT is(pg_temp.everything(), :'everything', 'nothing is left of it');
SELECT is(pg_temp.rows_of('SELECT events, batches, errors, status FROM event_store.projections'), '(0,0,0,ready)', 'not in the view either');
SELECT event_store.run_projection('counts', 1) \g /dev/null
SELECT is(pg_temp.dry('counts'), '(6,2,0,t)', 'from where it is');
SELECT is(pg_temp.dry('counts', ', 0'), '(10,3,0,t)', 'or from the beginning');
SELECT is((SELECT position FROM event_store.projections), 4::bigint, 'it stays where it is');
CREATE FUNCTION fails(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log VALUES (event.position, 'dry');
    IF event.type = 'Bad' THEN RAISE EXCEPTION 'no "%"', event.version USING ERRCODE = 'ABCDE'; END IF;
END $$;
SELECT event_store.create_projection('fails', 'orders', function => 'fails(event_store.event)', mode => 'manual') \g /dev/null
SELECT pg_temp.everything() AS everything \gset
SELECT is(pg_temp.dry('fails'), '(8,1,2,t)', 'what fails is left out');
SELECT is((SELECT errors FROM event_store.dry_run_projection('fails')),
    '[{"position": 4, "event_id": "00000000-0000-0000-0000-000000000004", "stream": "a-1", "type": "Bad", "sqlstate": "ABCDE", "message": "no \"2\""},
      {"position": 7, "event_id": "00000000-0000-0000-0000-000000000007", "stream": "a-1", "type": "Bad", "sqlstate": "ABCDE", "message": "no \"3\""}]', 'and listed');
SELECT is(pg_temp.dry('fails', ', 3, 2'), '(1,1,1,t)', 'max_count counts those that fail');
SELECT is(pg_temp.everything(), :'everything', 'nothing is left of it');
SELECT event_store.alter_projection('fails', 'SELECT 1 / 0 FROM events') \g /dev/null
SELECT event_store.append_batch('orders', 'more-1', array_agg('T'::text), array_agg('1'::jsonb)) FROM generate_series(1, 110) i \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT events, failed, jsonb_array_length(errors), errors -> 99 -> 'position' AS p FROM event_store.dry_run_projection('fails') $$), '(0,120,100,100)', 'no more than 100 errors are listed');
SELECT event_store.alter_projection('fails', 'INSERT INTO log SELECT position, ''parts'' FROM events', partitions => 3, types => '{Bad}') \g /dev/null
SELECT is(pg_temp.dry('fails') ~ '^\(2,[12],0,t\)$', true, 'over partitions');
SELECT is(pg_temp.error_of(format('SELECT event_store.dry_run_projection(''counts'', %s)', a)), replace(expected, '|', E'\n'), 'dry_run_projection(): ' || a)
  FROM (VALUES ('-1', '22023|after must not be negative, but is -1'), ('0, -1', '22023|max_count must not be negative, but is -1'),
               ('121', '22023|position 121 is ahead of the event table, whose last one is 120|event_store.high_water_mark() is the position to begin at for what comes from now on.')) AS c(a, expected);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT matches(pg_temp.error_of(format('SELECT event_store.%s(''counts'')', f)), format(E'^25001\n%s\\(\\) must not be called under REPEATABLE READ', f), f || '() under REPEATABLE READ') FROM unnest('{dry_run_projection,check_projection}'::text[]) f;
ROLLBACK;
SELECT event_store.pause_projection('counts') \g /dev/null
SELECT is(pg_temp.dry('counts'), '(116,29,0,t)', 'a paused one can be tried');
SELECT event_store.resume_projection('counts') \g /dev/null
SELECT event_store.alter_projection('fails', 'INSERT INTO log SELECT position, ''drops'' FROM events; SELECT event_store.drop_projection(''fails'')', types => '{}', partitions => 1, batch_size => 50) \g /dev/null
SELECT pg_temp.everything() AS everything \gset
SELECT is(pg_temp.dry('fails'), '(50,1,0,t)', 'one that drops itself');
SELECT is(pg_temp.everything(), :'everything', 'is still there');
SELECT event_store.alter_projection('fails', 'SELECT event_store.pause_projection(''fails'')') \g /dev/null
SELECT matches(pg_temp.dry('fails'), '^\(\d+,\d+,0,t\)$', 'one that pauses itself');
SELECT is((SELECT status FROM event_store.projections WHERE name = 'fails'), 'ready', 'is not paused');
SELECT event_store.drop_projection('fails') \g /dev/null
SELECT event_store.create_projection('inline', 'orders', 'INSERT INTO log SELECT position, ''inline'' FROM events', mode => 'inline') \g /dev/null
SELECT is(pg_temp.dry('inline'), '(120,1,0,t)', 'an inline one: all events');
SELECT is((SELECT count(*) FROM event_store.projection_checkpoints WHERE projection = 'inline') || ' ' || (SELECT count(*) FROM log WHERE note = 'inline'), '0 120', 'which leaves it as it is');
SELECT event_store.drop_projection('inline') \g /dev/null
DELETE FROM log WHERE note = 'inline';
SELECT lives_ok($$ DO $x$ BEGIN PERFORM event_store.dry_run_projection('counts'); RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $x$ $$, 'within a subtransaction that is rolled back');

-- Checks.
CREATE FUNCTION pg_temp.checked(name text, live boolean DEFAULT false) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.rows_of(format('SELECT "table", rows, same, difference FROM event_store.check_projection(%L, %L)', name, live)) $$;
SELECT is(pg_temp.checked('counts') ~ '^55000: it is not known which tables', true, 'it must be known what to compare');
SELECT event_store.alter_projection('counts', tables => '{counts,log}') \g /dev/null
SELECT event_store.run_projection('counts') \g /dev/null
SELECT pg_temp.everything() AS everything \gset
SELECT is(pg_temp.checked('counts'), '(counts,4,t,) (log,120,t,)', 'a deterministic projection');
SELECT is(pg_temp.checked('counts', true), '(counts,4,t,) (log,120,t,)', 'that is as its events say');
SELECT is((SELECT array_agg(digest) FROM event_store.check_projection('counts')), (SELECT array_agg(digest) FROM event_store.check_projection('counts', true)), 'with the same digests');
SELECT is(pg_temp.everything(), :'everything', 'nothing is left of it');
UPDATE counts SET events = 7 WHERE stream = 'a-1';
INSERT INTO log VALUES (0, 'forged');
SELECT is(pg_temp.checked('counts'), '(counts,4,t,) (log,120,t,)', 'corrupted, two replays are still the same');
SELECT is(pg_temp.rows_of($$ SELECT "table", rows, same, difference FROM event_store.check_projection('counts', true) $$),
    '(counts,4,f,"{""key"": {""stream"": ""a-1""}, ""live"": {""events"": 7, ""stream"": ""a-1""}, ""replay"": {""events"": 4, ""stream"": ""a-1""}}") '
    '(log,120,f,"{""row"": {""note"": ""forged"", ""position"": 0}, ""only_in"": ""live""}")', 'what is live differs from what its events say');
SELECT event_store.append('orders', 'late-1', 'T', '{}') \g /dev/null
UPDATE counts SET events = 4 WHERE stream = 'a-1';
DELETE FROM log WHERE note = 'forged';
SELECT is(pg_temp.checked('counts', true), '(counts,4,t,) (log,120,t,)', 'only up to the checkpoint');
SELECT is(pg_temp.checked('counts'), '(counts,5,t,) (log,121,t,)', 'replays are of all events');
SELECT event_store.create_projection('random', 'orders', 'INSERT INTO log SELECT position, random()::text FROM events', mode => 'manual', tables => '{log}') \g /dev/null
SELECT matches(pg_temp.checked('random'), '^\(log,121,f,"\{""row"": \{""note"": ""0\.\d+"", ""position"": \d+\}, ""only_in"": ""(first|second)""\}"\)$', 'one that depends on chance');
SELECT event_store.alter_projection('random', 'INSERT INTO log SELECT 1 / (position - 5), ''x'' FROM events') \g /dev/null
SELECT matches(pg_temp.error_of($$ SELECT event_store.check_projection('random') $$), '^SE007\nprojection "random" failed at position 5: division by zero\n', 'an event that fails: SE007');
SELECT is(current_user || ' ' || (SELECT count(*) FROM pg_class WHERE relname ~ '^(log$|first_replay)'), 'postgres 1', 'after an error all is as it was');
SELECT event_store.alter_projection('random', 'INSERT INTO public.log SELECT position, type FROM events') \g /dev/null
SELECT matches(pg_temp.error_of($$ SELECT event_store.check_projection('random') $$), 'has written table "log" past its shadow', 'one that goes past its shadows');
SELECT is((SELECT count(*) FROM log), 120::bigint, 'which has been taken back');
SELECT event_store.alter_projection('random', 'SELECT pg_catalog.set_config(''work_mem'', ''1234'', false) FROM events') \g /dev/null
SELECT is(pg_temp.checked('random') || current_setting('work_mem'), '(log,0,t,)4MB', 'a read model that stays empty; settings are put back');
CREATE TEMP TABLE log (a int);
SELECT matches(pg_temp.error_of($$ SELECT event_store.check_projection('counts') $$), '^42P07\na temporary relation "log" already exists\nIt is where the shadow of public\.log has to be\.', 'a temporary table of that name is in the way');
DROP TABLE pg_temp.log;
BEGIN;
SELECT is(pg_temp.checked('counts'), '(counts,5,t,) (log,121,t,)', 'in a transaction');
SELECT is(pg_temp.checked('counts'), '(counts,5,t,) (log,121,t,)', 'twice');
SELECT is(pg_temp.rows_of($$ SELECT events FROM event_store.run_projection('counts') $$), '(1)', 'which goes on');
COMMIT;
SELECT is((SELECT count(*) FROM log), 121::bigint, 'and counts');
SELECT event_store.alter_projection('counts', partitions => 3, mode => 'manual') \g /dev/null
SELECT is(pg_temp.checked('counts', true), '(counts,5,t,) (log,121,t,)', 'over partitions');
SELECT event_store.alter_projection('counts', mode => 'inline') \g /dev/null
SELECT is(pg_temp.checked('counts', true), '(counts,5,t,) (log,121,t,)', 'an inline one');
SELECT event_store.append('orders', 'late-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.checked('counts', true), '(counts,5,t,) (log,122,t,)', 'which is up to date');

SELECT * FROM finish();
