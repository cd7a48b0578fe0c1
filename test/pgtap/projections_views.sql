-- The views projections and parked_events, and what lies under them.
SET client_min_messages = warning;
SELECT plan(67);

\ir include/rows_of.sql
\ir include/error_of.sql

SELECT is_empty('SELECT * FROM event_store.projections', 'no projection yet');
CREATE ROLE es_views_owner LOGIN;
CREATE ROLE es_views_reader;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append_batch('orders', 'o-1', '{A,B,C,D}', '{1,2,3,4}') \g /dev/null
GRANT SELECT ON orders TO es_views_owner, es_views_reader;
SET ROLE es_views_owner;
SELECT event_store.create_projection('p', 'orders', 'SELECT 1 / (position - 3) FROM events', mode => 'manual', on_error => 'park', partitions => 2) \g /dev/null
SELECT event_store.create_projection('idle', 'orders', 'SELECT FROM events', mode => 'manual', batch_size => 1) \g /dev/null
SELECT event_store.run_projection('idle', 2) \g /dev/null
RESET ROLE;

-- Also of positions that no checkpoint has.
SELECT is(pg_temp.rows_of($$ SELECT p, l.newest, l.events, l.seconds > 0 AS behind FROM unnest('{0,4,-9223372036854775808,9223372036854775807}'::bigint[]) p, event_store._projection_lag('orders', p) l $$),
    '(0,4,4,t) (4,4,0,f) (-9223372036854775808,4,4,t) (9223372036854775807,4,0,f)', 'how far a position is behind');

-- Status, one after another.
CREATE FUNCTION pg_temp.status() RETURNS text LANGUAGE sql AS $$ SELECT status FROM event_store.projections WHERE name = 'p' $$;
SELECT is(pg_temp.status(), 'ready', 'manual: ready');
UPDATE event_store.registered_projections SET mode = 'async' WHERE name = 'p';
SELECT is(pg_temp.status(), 'running', 'async: running');
UPDATE event_store.projection_checkpoints SET attempts = 2, retry_at = '2100-01-01', errors = 2, error_position = 3, error_event_id = '00000000-0000-0000-0000-000000000003', error_stream = 'o-1', error_type = 'C', error_sqlstate = '22012', error_message = 'm', error_context = 'c', error_at = '2001-01-01'
 WHERE projection = 'p' AND partition = 1;
SELECT is(pg_temp.status(), 'retrying', 'a partition has failed');
SELECT is(pg_temp.rows_of($$ SELECT attempts, retry_at = '2100-01-01' AS r, errors, last_error_position, last_error_event_id, last_error_stream, last_error_type, last_error_sqlstate, last_error, last_error_context, last_error_at = '2001-01-01' AS e FROM event_store.projections WHERE name = 'p' $$),
    '(2,t,2,3,00000000-0000-0000-0000-000000000003,o-1,C,22012,m,c,t)', 'with its error');
UPDATE event_store.projection_checkpoints SET error_position = 4, error_sqlstate = 'P0001', error_message = 'newer', error_at = '2001-01-02' WHERE projection = 'p' AND partition = 2;
SELECT is((SELECT last_error FROM event_store.projections WHERE name = 'p'), 'newer', 'the newest one');
UPDATE event_store.projection_checkpoints SET failed = true, attempts = 5, retry_at = NULL WHERE projection = 'p' AND partition = 1;
SELECT is(pg_temp.status() || ' ' || (SELECT last_error FROM event_store.projections WHERE name = 'p'), 'failed m', 'but first that which has stopped it');
SET ROLE es_views_reader;
SELECT is(pg_temp.rows_of($$ SELECT status, attempts, num_nonnulls(last_error_at, last_error_position, last_error_event_id, last_error_stream, last_error_type, last_error_sqlstate, last_error, last_error_context) FROM event_store.projections WHERE name = 'p' $$),
    '(failed,5,0)', 'the error is shown to the owner only');
RESET ROLE;
SELECT event_store.pause_projection('p') \g /dev/null
SELECT is(pg_temp.status(), 'paused', 'paused');
UPDATE event_store.registered_projections SET restored = true WHERE name = 'p';
SELECT is(pg_temp.status(), 'restored', 'restored');
SELECT event_store.resume_projection('p') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT status, attempts, retry_at, errors, last_error FROM event_store.projections WHERE name = 'p' $$), '(running,0,,2,newer)', 'resumed; what went wrong is remembered');
UPDATE event_store.registered_projections SET mode = 'manual' WHERE name = 'p';

-- Positions, lag and rate.
SELECT is(pg_temp.rows_of($$ SELECT name, position, lag_events, lag_seconds > 0 AS l, events, batches, parked FROM event_store.projections ORDER BY name $$), '(idle,2,2,t,2,2,0) (p,0,4,t,0,0,0)', 'how far each is behind');
SELECT event_store.run_projection('idle') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT position, lag_events, lag_seconds, rate > 0 AS r, events, updated_at <= clock_timestamp() AS u FROM event_store.projections WHERE name = 'idle' $$), '(4,0,0,t,4,t)', 'one that has caught up');
UPDATE event_store.projection_checkpoints SET updated_at = now() - interval '11 seconds' WHERE projection = 'idle';
SELECT is((SELECT rate FROM event_store.projections WHERE name = 'idle'), 0::double precision, 'the rate is that of late');
UPDATE event_store.projection_checkpoints SET position = partition WHERE projection = 'p';
SELECT is((SELECT position || ' ' || lag_events FROM event_store.projections WHERE name = 'p'), '1 3', 'the least of the partitions counts');
UPDATE event_store.projection_checkpoints SET position = 0, event_id = NULL WHERE projection = 'p';
SELECT event_store.run_projection('p') \g /dev/null
SELECT is(pg_temp.rows_of('SELECT projection, position, event_id = (SELECT event_id FROM orders o WHERE o.position = 3) AS e, stream, type, attempts, sqlstate, message, context ~ ''in projection "p"'' AS c, parked_at <= tried_at AS t FROM event_store.parked_events'),
    '(p,3,t,o-1,C,1,22012,"division by zero",t,t)', 'what is parked');
SELECT is((SELECT parked FROM event_store.projections WHERE name = 'p'), 1::bigint, 'and how many');
SELECT parked_at AS "when", tried_at AS tried FROM event_store.parked_events \gset
SELECT event_store.retry_parked('p') \g /dev/null
SELECT is((SELECT parked_at = :'when' AND tried_at > :'tried' AND attempts = 2 FROM event_store.parked_events), true, 'tried again, and parked since then');
BEGIN;
SELECT event_store.append('orders', 'o-1', 'T', '{}') \g /dev/null
SELECT is((SELECT lag_events FROM event_store.projections WHERE name = 'idle'), 0::bigint, 'what is in flight is not lag');
ROLLBACK;

-- What cannot be told is null, and raises nothing.
REVOKE SELECT ON orders FROM es_views_owner;
SET ROLE es_views_owner;
SELECT is(pg_temp.rows_of($$ SELECT name, position, lag_events, lag_seconds FROM event_store.projections ORDER BY 1 $$), '(idle,4,,) (p,4,,)', 'an owner who may not read the event table any more');
RESET ROLE;
GRANT SELECT ON orders TO es_views_owner;
CREATE POLICY everything ON orders USING (true);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SET ROLE es_views_owner;
SELECT is(pg_temp.rows_of($$ SELECT name, position, lag_events FROM event_store.projections ORDER BY 1 $$), '(idle,4,) (p,4,)', 'policies apply');
RESET ROLE;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;

-- A restore: what it brings belongs to whoever restores it, and waits.
SELECT format('ALTER DATABASE %I OWNER TO es_views_reader', current_database()) \gexec
SET ROLE es_views_reader;
INSERT INTO event_store.registered_projections VALUES ('forged', 'es_views_owner', 'public.orders', 'SELECT FROM events', NULL, NULL, NULL, 'manual', 1, 'public, pg_temp', NULL, 'stop', 5, '1 s', 10, '1 s', 0, false, false, NULL);
SELECT throws_ok($$ INSERT INTO event_store.projection_checkpoints SELECT 'idle', false, 9, 0, NULL, 0, 0, 0, 0, 0, now(), 0, false $$, '42501', 'must be owner of projection idle', 'no checkpoint for a projection of somebody else');
SELECT throws_ok($$ INSERT INTO event_store.projection_parked SELECT 'idle', false, 1, gen_random_uuid(), 'a', 'b', 0, NULL, NULL, NULL, now(), now() $$, '42501', 'must be owner of projection idle', 'nor a parked event');
INSERT INTO event_store.projection_checkpoints SELECT 'forged', false, 1, 0, NULL, 0, 0, 0, 0, 0, now(), 0, false;
SELECT is(pg_temp.error_of($$ SELECT event_store.run_projection('forged') $$), E'55000\nprojection "forged" is paused\nIt has been restored from a dump.\nCall event_store.resume_projection(''forged'').', 'a restored one waits');
SELECT is((SELECT owner || ' ' || status FROM event_store.projections WHERE name = 'forged'), 'es_views_reader restored', 'nobody can be made the owner of one');
-- Nor do rows that do not belong together crash anything.
INSERT INTO event_store.registered_projections SELECT 'bare ' || mode, 'es_views_reader', 'public.orders', 'SELECT FROM events', NULL, NULL, NULL, mode, 3, 'public, pg_temp', NULL, 'stop', 5, '1 s', 10, '1 s', 0, false, false, NULL FROM unnest('{manual,async,inline}'::text[]) mode;
INSERT INTO event_store.projection_checkpoints SELECT 'bare async', false, 2, 0, NULL, 0, 0, 0, 0, 0, now(), 0, false;
SELECT event_store.resume_projection(name) FROM event_store.projections WHERE name ~ '^bare' \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT name, position, events FROM event_store.projections WHERE name ~ '^bare' ORDER BY 1 $$), '("bare async",0,0) ("bare inline",,) ("bare manual",,)', 'the view shows projections without checkpoints');
SELECT unalike(pg_temp.error_of(format('SELECT event_store.%s(%L)', f, name)), 'XX%', format('%s() of one without: %s', f, name))
  FROM (SELECT name FROM event_store.projections WHERE name ~ '^bare' ORDER BY 1) p, unnest('{run_projection,dry_run_projection,retry_parked,pause_projection,resume_projection,rebuild_projection,check_projection,reset_projection}'::text[]) f;
SELECT unalike(pg_temp.error_of(format('SELECT event_store.wait_for_projection(%L, 1, ''0'')', name)), 'XX%', 'wait_for_projection(): ' || name) FROM event_store.projections WHERE name ~ '^bare';
SELECT unalike(pg_temp.error_of(format('SELECT event_store.alter_projection(%L, %s)', name, change)), 'XX%', format('alter_projection(%s): %s', change, name))
  FROM (SELECT name FROM event_store.projections WHERE name ~ '^bare' ORDER BY 1) p, unnest('{partitions => 2,mode => ''manual''}'::text[]) change;
SELECT lives_ok(format('SELECT event_store.drop_projection(%L)', name), 'drop_projection(): ' || name) FROM event_store.projections WHERE name ~ '^bare' ORDER BY name;
RESET ROLE;
SELECT format('ALTER DATABASE %I OWNER TO postgres', current_database()) \gexec

-- An owner who is dropped.
CREATE ROLE es_views_gone LOGIN;
GRANT SELECT ON orders TO es_views_gone;
SET ROLE es_views_gone;
SELECT event_store.create_projection('orphan', 'orders', 'SELECT FROM events', mode => 'manual') \g /dev/null
RESET ROLE;
REVOKE SELECT ON orders FROM es_views_gone;
DROP ROLE es_views_gone;
SELECT is(pg_temp.rows_of($$ SELECT status, position, lag_events FROM event_store.projections WHERE name = 'orphan' $$), '(orphaned,0,4)', 'orphaned');
SELECT matches(pg_temp.error_of($$ SELECT event_store.run_projection('orphan') $$), '^(42501|42704|55000)\n', 'nobody can run it');
SELECT lives_ok($$ SELECT event_store.alter_projection('orphan', owner => 'es_views_owner') $$, 'a superuser gives it to another role');
SELECT is(pg_temp.rows_of($$ SELECT owner, status, r.events FROM event_store.run_projection('orphan') r, event_store.projections WHERE name = 'orphan' $$), '(es_views_owner,ready,4)', 'as which it goes on');

DROP OWNED BY es_views_owner, es_views_reader;
DROP ROLE es_views_owner, es_views_reader;

SELECT * FROM finish();
