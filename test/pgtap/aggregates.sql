-- The registry of aggregates: what can be a reducer, who may make, replace and
-- drop an aggregate, and what becomes of its snapshots.
SET client_min_messages = warning;
SELECT plan(73);

\ir include/error_of.sql
\ir include/rows_of.sql

CREATE SCHEMA "Own Schema";
CREATE FUNCTION "Own Schema"."The Reducer"(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state || event.data';
CREATE FUNCTION r_stable(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS 'BEGIN RETURN state; END';
CREATE FUNCTION r_strict(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT AS 'SELECT state || event.data';
CREATE FUNCTION r_out(state jsonb, event event_store.event, OUT result jsonb) LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION f_volatile(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION f_set(state jsonb, event event_store.event) RETURNS SETOF jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION f_text(state jsonb, event event_store.event) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text';
CREATE FUNCTION f_json(state json, event event_store.event) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION f_record(state jsonb, event record) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN state; END';
CREATE FUNCTION f_polymorphic(state anyelement, event event_store.event) RETURNS anyelement LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION f_variadic(state jsonb, VARIADIC event event_store.event[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION f_one(state jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION f_three(state jsonb, event event_store.event, more int DEFAULT 1) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION f_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE PROCEDURE f_procedure(state jsonb, event event_store.event) LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE f_aggregate(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
CREATE FUNCTION pg_temp.f_temporary(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';

-- Making one.
SELECT lives_ok($$ SELECT event_store.create_aggregate('order') $$, 'create_aggregate() with a name alone');
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.aggregates $$), format('(order,%s,"event_store.merge(pg_catalog.jsonb,event_store.event)",{},,1)', current_user),
    'merges objects, and has no snapshots');
SELECT lives_ok($$ SELECT event_store.create_aggregate('Größe ''"\', '"Own Schema"."The Reducer"(jsonb, event_store.event)', '[]', 7, 3) $$, 'with everything');
SELECT is(pg_temp.rows_of($$ SELECT owner::text = current_user, reducer, initial, snapshot_every, schema_version FROM event_store.aggregates WHERE name = 'Größe ''"\' $$),
    '(t,"""Own Schema"".""The Reducer""(pg_catalog.jsonb,event_store.event)",[],7,3)', 'which is stored, the function by its qualified signature');
SET search_path = "Own Schema", public;
SELECT lives_ok($$ SELECT event_store.create_aggregate('by path', '"The Reducer"(jsonb, event_store.event)') $$, 'a function that is found by the search_path');
RESET search_path;
SELECT is((SELECT reducer FROM event_store.aggregates WHERE name = 'by path'), '"Own Schema"."The Reducer"(pg_catalog.jsonb,event_store.event)', 'is qualified all the same');
SELECT lives_ok(format('SELECT event_store.create_aggregate(%L, %L)', f, f || '(jsonb, event_store.event)'), f || ' can be a reducer')
  FROM unnest('{r_stable,r_strict,r_out}'::text[]) f;
SELECT lives_ok($$ SELECT event_store.create_aggregate('null', initial => 'null') $$, 'a JSON null is a state');
SELECT lives_ok(format('SELECT event_store.create_aggregate(%L)', repeat('x', 255)), 'a name of 255 bytes');

SELECT is(pg_temp.error_of(format('SELECT event_store.create_aggregate(''new'', %L)', f)),
          format(E'42P13\n%s cannot be the reducer of aggregate "new"\n%s\nA reducer is a function (state jsonb, event event_store.event) RETURNS jsonb, IMMUTABLE or STABLE, since the same events must always give the same state.',
              f::regprocedure, problem), f || ' cannot')
  FROM (VALUES ('f_volatile(jsonb,event_store.event)', 'It is VOLATILE, as are all functions that do not say otherwise.'),
               ('f_set(jsonb,event_store.event)', 'It returns a set.'),
               ('f_text(jsonb,event_store.event)', 'It returns another type.'),
               ('f_json(json,event_store.event)', 'Its parameters are others.'),
               ('f_record(jsonb,record)', 'Its parameters are others.'),
               ('f_polymorphic(anyelement,event_store.event)', 'Its parameters are others.'),
               ('f_variadic(jsonb,event_store.event[])', 'Its parameters are others.'),
               ('f_one(jsonb)', 'Its parameters are others.'),
               ('f_three(jsonb,event_store.event,int)', 'Its parameters are others.'),
               ('f_trigger()', 'Its parameters are others.'),
               ('f_procedure(jsonb,event_store.event)', 'It is not an ordinary function.'),
               ('f_aggregate(jsonb)', 'It is not an ordinary function.'),
               ('pg_catalog.rank()', 'It is not an ordinary function.'),
               ('pg_temp.f_temporary(jsonb,event_store.event)', 'It is temporary.')) AS c(f, problem);
SELECT is(pg_temp.rows_of(format('SELECT event_store.create_aggregate(%s)', arguments)), expected, 'create_aggregate: ' || description)
  FROM (VALUES ($$ NULL $$, '22004: name must not be null', 'a name that is NULL'),
               ($$ '' $$, '22023: name must not be empty', 'an empty name'),
               ($$ repeat('x', 256) $$, '22023: name is too long: 256 bytes', 'a long name'),
               ($$ 'new', NULL $$, '22004: reducer must not be null', 'a reducer that is NULL'),
               ($$ 'new', initial => NULL $$, '22004: initial must not be null', 'an initial state that is NULL'),
               ($$ 'new', snapshot_every => 0 $$, '22023: snapshot_every must be at least 1, not 0', 'snapshots every 0 events'),
               ($$ 'new', snapshot_every => -1 $$, '22023: snapshot_every must be at least 1, not -1', 'snapshots every -1 events'),
               ($$ 'new', schema_version => 0 $$, '22023: schema_version must be at least 1, not 0', 'schema version 0'),
               ($$ 'new', schema_version => NULL $$, '22004: schema_version must not be null', 'a schema version that is NULL'),
               ($$ 'new', 'nothing_such(jsonb)' $$, '42883: function "nothing_such(jsonb)" does not exist', 'a function that is not there'),
               ($$ 'new', 4294967290::regprocedure $$, '42883: function with OID 4294967290 does not exist', 'an OID that is no function''s'),
               ($$ 'order' $$, '42710: aggregate "order" already exists', 'a name that is taken'),
               ($$ 'order', or_replace => NULL $$, '42710: aggregate "order" already exists', 'or_replace NULL does not replace')) AS c(arguments, expected, description);
SELECT is((SELECT count(*) FROM event_store.aggregates WHERE name = 'new'), 0::bigint, 'nothing of that is stored');
BEGIN READ ONLY;
SELECT throws_ok($$ SELECT event_store.create_aggregate('new') $$, '25006', 'cannot execute create_aggregate() in a read-only transaction', 'create_aggregate() writes');
ROLLBACK;
BEGIN;
SELECT event_store.create_aggregate('gone') \g /dev/null
ROLLBACK;
SELECT is((SELECT count(*) FROM event_store.aggregates WHERE name = 'gone'), 0::bigint, 'what is rolled back is not there');

-- Replacing.  Snapshots by another reducer must have another schema version.
SELECT is(pg_temp.rows_of(format('SELECT event_store.create_aggregate(%s, or_replace => true)', arguments)), expected, 'or_replace: ' || description)
  FROM (VALUES ($$ 'counted', 'r_stable(jsonb, event_store.event)' $$, '("")', 'a name that is free'),
               ($$ 'counted', 'r_stable(jsonb, event_store.event)', snapshot_every => 100 $$, '("")', 'snapshot_every alone may change'),
               ($$ 'counted', 'r_out(jsonb, event_store.event)' $$, '22023: schema_version 1 is taken: aggregate "counted" is at schema_version 1', 'the reducer alone may not'),
               ($$ 'counted', 'r_stable(jsonb, event_store.event)', '[]' $$, '22023: schema_version 1 is taken: aggregate "counted" is at schema_version 1', 'nor the initial state'),
               ($$ 'counted', 'r_out(jsonb, event_store.event)', '[]', NULL, 3 $$, '("")', 'with a greater schema version they may'),
               ($$ 'counted', 'r_out(jsonb, event_store.event)', '[ ]', 9, 3 $$, '("")', 'the same again')) AS c(arguments, expected, description);
SELECT is(pg_temp.error_of($$ SELECT event_store.create_aggregate('counted', 'r_out(jsonb, event_store.event)', '[]', NULL, 2, or_replace => true) $$),
    E'22023\nschema_version 2 is taken: aggregate "counted" is at schema_version 3\nGive a greater one, so that older snapshots are not taken for new states.', 'the schema version does not fall');
SELECT is(pg_temp.rows_of($$ SELECT reducer, initial, snapshot_every, schema_version FROM event_store.aggregates WHERE name = 'counted' $$),
    '("public.r_out(pg_catalog.jsonb,event_store.event)",[],9,3)', 'the last one holds');

-- Dropping, and the snapshots that go with it.
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append_batch('orders', 'order-1', '{T,T,T}', '{1,2,3}') \g /dev/null
SELECT event_store.save_snapshot('orders', 'order-1', 2, '{}', name, version) FROM unnest('{counted,order}'::text[]) AS name, unnest('{1,3}'::int[]) AS version \g /dev/null
SELECT lives_ok($$ SELECT event_store.drop_aggregate('counted') $$, 'drop_aggregate()');
SELECT is((SELECT count(*) FROM event_store.aggregates WHERE name = 'counted'), 0::bigint, 'drops it');
SELECT is((SELECT string_agg(aggregate, ' ') FROM event_store.snapshots), 'order order', 'and its snapshots, of all schema versions, no others');
SELECT is(pg_temp.rows_of(format('SELECT event_store.drop_aggregate(%s)', arguments)), expected, 'drop_aggregate: ' || description)
  FROM (VALUES ($$ NULL $$, '22004: name must not be null', 'a name that is NULL'),
               ($$ '' $$, '22023: name must not be empty', 'an empty name'),
               ($$ 'counted' $$, '42704: aggregate "counted" does not exist', 'what is not there')) AS c(arguments, expected, description);

-- Who may.
CREATE ROLE es_aggregates_ann;
CREATE ROLE es_aggregates_bob;
CREATE ROLE es_aggregates_member IN ROLE es_aggregates_ann;
SET ROLE es_aggregates_ann;
SELECT is(pg_temp.rows_of($$ SELECT event_store.create_aggregate('anns') $$), '42501: permission denied for database ' || current_database(), 'it takes CREATE on the database');
RESET ROLE;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO es_aggregates_ann, es_aggregates_bob', current_database()); END $$;
REVOKE EXECUTE ON FUNCTION r_stable(jsonb, event_store.event) FROM PUBLIC;
SET ROLE es_aggregates_ann;
SELECT is(pg_temp.rows_of($$ SELECT event_store.create_aggregate('anns', 'r_stable(jsonb, event_store.event)') $$), '42501: permission denied for function r_stable', 'and EXECUTE on the reducer');
SELECT lives_ok($$ SELECT event_store.create_aggregate('anns') $$, 'then it is allowed');
SELECT is((SELECT owner::text FROM event_store.aggregates WHERE name = 'anns'), 'es_aggregates_ann', 'and the creator owns it, and can see so');
SELECT throws_ok($$ INSERT INTO event_store.aggregates VALUES ('forged', 'es_aggregates_ann', 'f()', '{}', NULL, 1) $$, '42501', NULL, 'nobody writes the table itself');
SELECT throws_ok($$ DELETE FROM event_store.aggregates $$, '42501', NULL, 'or deletes from it');
SET ROLE es_aggregates_bob;
SELECT is(pg_temp.rows_of($$ SELECT event_store.create_aggregate('anns', snapshot_every => 1, or_replace => true) $$), '42501: must be owner of aggregate anns', 'others may not replace it');
SELECT is(pg_temp.rows_of($$ SELECT event_store.drop_aggregate('anns') $$), '42501: must be owner of aggregate anns', 'nor drop it');
SELECT is(pg_temp.rows_of($$ SELECT event_store.create_aggregate('saved') $$), '("")', 'a name is free');
SELECT event_store.drop_aggregate('saved') \g /dev/null
RESET ROLE;
SELECT event_store.save_snapshot('orders', 'order-1', 2, '{}', 'saved') \g /dev/null
SET ROLE es_aggregates_bob;
SELECT is(pg_temp.error_of($$ SELECT event_store.create_aggregate('saved') $$),
    E'42501\npermission denied for snapshots of aggregate "saved"\nOthers have saved snapshots under this name, of event tables that you do not own.\nTake another name.', 'but not where others have saved snapshots under it');
SET ROLE es_aggregates_member;
SELECT lives_ok($$ SELECT event_store.create_aggregate('anns', snapshot_every => 5, or_replace => true) $$, 'a member of its owner may replace it');
SELECT is((SELECT owner::text || ' ' || snapshot_every FROM event_store.aggregates WHERE name = 'anns'), 'es_aggregates_ann 5', 'and its owner stays');
RESET ROLE;
SELECT lives_ok($$ SELECT event_store.create_aggregate('saved') $$, 'the owner of the event tables may take the name');
SELECT lives_ok($$ SELECT event_store.drop_aggregate('anns') $$, 'a superuser may drop anybody''s');

-- What a restore brings.
GRANT INSERT ON event_store.aggregates TO es_aggregates_bob;
GRANT USAGE ON SCHEMA event_store TO es_aggregates_bob;
SET ROLE es_aggregates_bob;
INSERT INTO event_store.aggregates VALUES ('restored', 'es_aggregates_ann', 'f()', '{}', NULL, 1), ('lost', 4294967290::oid::regrole, 'f()', '{}', NULL, 1), ('own', 'es_aggregates_bob', 'f()', '{}', NULL, 1);
RESET ROLE;
INSERT INTO event_store.aggregates VALUES ('kept', 'es_aggregates_ann', 'f()', '{}', NULL, 1);
SELECT is((SELECT string_agg(name || ' ' || owner::text, ', ' ORDER BY name) FROM event_store.aggregates WHERE reducer = 'f()'),
    'kept es_aggregates_ann, lost es_aggregates_bob, own es_aggregates_bob, restored es_aggregates_bob', 'a row that a restore brings belongs to its owner, or to whoever cannot act for him');
SELECT throws_ok(format('INSERT INTO event_store.aggregates VALUES (%s)', row_), '23514', NULL, 'the table refuses ' || row_)
  FROM (VALUES ($$ '', 10, 'f()', '{}', NULL, 1 $$), ($$ 'x', 10, 'f()', '{}', 0, 1 $$), ($$ 'x', 10, 'f()', '{}', NULL, 0 $$)) AS c(row_);
REVOKE ALL ON event_store.aggregates FROM es_aggregates_bob;
REVOKE ALL ON SCHEMA event_store FROM es_aggregates_bob;
DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM es_aggregates_ann, es_aggregates_bob', current_database()); END $$;

DROP ROLE es_aggregates_member, es_aggregates_ann, es_aggregates_bob;
SELECT * FROM finish();
