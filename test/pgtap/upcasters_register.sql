-- Registering: what an upcaster is, chains without holes, and by the owner only.
SET client_min_messages = warning;
SELECT plan(98);

\ir include/rows_of.sql
\ir include/error_of.sql

CREATE ROLE es_register_owner;
CREATE ROLE es_register_reader;
CREATE SCHEMA shop AUTHORIZATION es_register_owner;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
SET ROLE es_register_owner;
SELECT event_store.create_event_table('shop.orders') \g /dev/null
SELECT event_store.create_event_table('shop.others') \g /dev/null
GRANT SELECT, INSERT ON shop.orders TO es_register_reader;
CREATE FUNCTION shop.good(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1;
CREATE FUNCTION shop.better(jsonb) RETURNS jsonb LANGUAGE sql STABLE RETURN $1;
CREATE FUNCTION shop."Odd ""name"".(jsonb)"(jsonb) RETURNS jsonb LANGUAGE sql STABLE RETURN '{"odd": true}'::jsonb;
CREATE FUNCTION shop.volatile(jsonb) RETURNS jsonb LANGUAGE sql RETURN $1;
CREATE FUNCTION shop.set_of(jsonb) RETURNS SETOF jsonb LANGUAGE sql IMMUTABLE RETURN $1;
CREATE FUNCTION shop.json(jsonb) RETURNS json LANGUAGE sql IMMUTABLE RETURN $1::json;
CREATE FUNCTION shop.of_json(json) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1::jsonb;
CREATE FUNCTION shop.two(jsonb, jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1;
CREATE FUNCTION shop.none() RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN '{}'::jsonb;
CREATE FUNCTION shop.any_number(VARIADIC jsonb[]) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1[1];
CREATE FUNCTION shop.anything(anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE PROCEDURE shop.procedure(jsonb) LANGUAGE sql AS '';
CREATE AGGREGATE shop.aggregate(jsonb) (sfunc = jsonb_concat, stype = jsonb);
RESET ROLE;
CREATE FUNCTION shop.window(jsonb) RETURNS jsonb LANGUAGE internal IMMUTABLE WINDOW AS 'window_first_value';
CREATE FUNCTION shop.not_yours(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1;
REVOKE EXECUTE ON FUNCTION shop.not_yours(jsonb) FROM PUBLIC;
CREATE FUNCTION pg_temp.temporary(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1;

-- What is refused, and why.
SET ROLE es_register_owner;
SELECT is(pg_temp.error_of(format($$ SELECT event_store.register_upcaster('shop.orders', 'T', 1, %L) $$, signature)),
    E'42P13\nfunction ' || signature || ' cannot be an upcaster: it ' || problem
        || E'\nAn upcaster is a function (jsonb) RETURNS jsonb, IMMUTABLE or STABLE: an event looks the same whenever it is read.',
    'a function that ' || problem || ': ' || signature)
  FROM (VALUES ('shop.volatile(jsonb)', 'is VOLATILE'), ('shop.set_of(jsonb)', 'does not return one jsonb'),
               ('shop.json(jsonb)', 'does not return one jsonb'), ('shop.of_json(json)', 'does not take one jsonb'),
               ('shop.two(jsonb,jsonb)', 'does not take one jsonb'), ('shop."none"()', 'does not take one jsonb'),
               ('shop.any_number(jsonb[])', 'does not take one jsonb'), ('shop.anything(anyelement)', 'does not take one jsonb'),
               ('shop.procedure(jsonb)', 'is not a plain function'), ('shop.aggregate(jsonb)', 'is not a plain function'),
               ('shop."window"(jsonb)', 'is not a plain function')) AS f(signature, problem);
RESET ROLE;
SELECT matches(pg_temp.error_of($$ SELECT event_store.register_upcaster('shop.orders', 'T', 1, 'pg_temp.temporary(jsonb)') $$),
    '^42P13\nfunction .* cannot be an upcaster: it is temporary', 'a temporary function');
SET ROLE es_register_owner;
SELECT is(pg_temp.rows_of(format('SELECT event_store.register_upcaster(%s)', arguments)), expected, 'register_upcaster: ' || description)
  FROM (VALUES ($$ 'shop.orders', 'T', 1, 'shop.not_yours(jsonb)' $$, '42501: permission denied for function not_yours', 'a function that the owner may not execute'),
               ($$ 'shop.orders', 'T', 1, 'shop.nothing(jsonb)' $$, '42883: function "shop.nothing(jsonb)" does not exist', 'no such function'),
               ($$ 'shop.orders', 'T', 1, 4294967290::regprocedure $$, '42883: function with OID 4294967290 does not exist', 'no such OID'),
               ($$ 'shop.orders', 'T', 1, 0::regprocedure $$, '42883: function with OID 0 does not exist', 'OID 0'),
               ($$ 'shop.orders', 'T', 1, NULL $$, '22004: function must not be null', 'NULL'),
               ($$ 'shop.orders', NULL, 1, 'shop.good(jsonb)' $$, '22004: type must not be null', 'a type that is NULL'),
               ($$ 'shop.orders', '', 1, 'shop.good(jsonb)' $$, '22023: type must not be empty', 'a type that is empty'),
               ($$ 'shop.orders', repeat('t', 256), 1, 'shop.good(jsonb)' $$, '22023: type is too long: 256 bytes', 'a type that is too long'),
               ($$ 'shop.orders', 'T', NULL, 'shop.good(jsonb)' $$, '22004: from_version must not be null', 'from_version NULL'),
               ($$ 'shop.orders', 'T', 0, 'shop.good(jsonb)' $$, '22023: from_version must be from 1 to 2147483646, not 0', 'from_version 0'),
               ($$ 'shop.orders', 'T', -2147483648, 'shop.good(jsonb)' $$, '22023: from_version must be from 1 to 2147483646, not -2147483648', 'the least integer'),
               ($$ 'shop.orders', 'T', 2147483647, 'shop.good(jsonb)' $$, '22023: from_version must be from 1 to 2147483646, not 2147483647', 'the greatest integer'),
               ($$ 'shop.orders', 'Last', 2147483646, 'shop.good(jsonb)' $$, '("")', 'the last version'),
               ($$ NULL, 'T', 1, 'shop.good(jsonb)' $$, '22004: event_table must not be null', 'no event table')) AS c(arguments, expected, description);
SELECT is(pg_temp.rows_of(format('SELECT event_store.unregister_upcaster(%s)', arguments)), expected, 'unregister_upcaster: ' || description)
  FROM (VALUES ($$ 'shop.orders', 'Last', 2147483646 $$, '(t)', 'one that there is'),
               ($$ 'shop.orders', 'Last', 2147483646 $$, '(f)', 'one that there was'),
               ($$ 'shop.orders', NULL, 1 $$, '22004: type must not be null', 'a type that is NULL'),
               ($$ 'shop.orders', 'T', NULL $$, '22004: from_version must not be null', 'from_version NULL'),
               ($$ 'shop.orders', 'T', 0 $$, '22023: from_version must be from 1 to 2147483646, not 0', 'from_version 0')) AS c(arguments, expected, description);

-- Chains: a step at a time, in this order.
CREATE FUNCTION pg_temp.step(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT event_store.%s', command);
    RETURN (SELECT coalesce(string_agg(from_version::text, ' ' ORDER BY from_version), 'none') FROM event_store.upcasters
             WHERE event_table = 'shop.orders'::regclass AND type = 'T');
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
SELECT is(pg_temp.step(regexp_replace(command, '\(', $$('shop.orders', 'T', $$)), expected, command || ': ' || expected)
  FROM (VALUES (1, $$register_upcaster(3, 'shop.good(jsonb)')$$, '3'),
               (2, $$register_upcaster(5, 'shop.good(jsonb)')$$, '22023'),
               (3, $$register_upcaster(1, 'shop.good(jsonb)')$$, '22023'),
               (4, $$register_upcaster(4, 'shop.good(jsonb)')$$, '3 4'),
               (5, $$register_upcaster(2, 'shop.good(jsonb)')$$, '2 3 4'),
               (6, $$register_upcaster(2147483646, 'shop.good(jsonb)')$$, '22023'),
               (7, $$register_upcaster(3, 'shop.better(jsonb)')$$, '2 3 4'),
               (8, $$unregister_upcaster(3)$$, '22023'),
               (9, $$unregister_upcaster(7)$$, '2 3 4'),
               (10, $$unregister_upcaster(4)$$, '2 3'),
               (11, $$unregister_upcaster(2)$$, '3'),
               (12, $$register_upcaster(2, 'shop."Odd ""name"".(jsonb)"(jsonb)')$$, '2 3'),
               (13, $$unregister_upcaster(3)$$, '2')) AS c(step, command, expected) ORDER BY step;
SELECT is((SELECT function FROM event_store.upcasters WHERE type = 'T'), 'shop."Odd ""name"".(jsonb)"(jsonb)', 'the function''s name is quoted');
SELECT event_store.append('shop.orders', 'o-1', 'T', '{}', schema_version => 2) \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT schema_version, data FROM event_store.read_stream('shop.orders', 'o-1') $$), '(3,"{""odd"": true}")', 'and found again');
SELECT is_empty($$ SELECT * FROM event_store.check_upcasters('shop.orders') $$, 'by check_upcasters() too');
SELECT event_store.register_upcaster('shop.orders', 'T', 3, 'shop.good(jsonb)') \g /dev/null
SELECT event_store.register_upcaster('shop.orders', 'T', 4, 'shop.good(jsonb)') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.register_upcaster('shop.orders', 'T', 6, 'shop.good(jsonb)') $$),
    E'22023\nan upcaster of type "T" from schema version 6 would leave a hole\nThere are upcasters from schema versions 2 to 4.\nRegister those in between first.\nshop.orders',
    'a hole is refused, and the error says why');
SELECT is(pg_temp.error_of($$ SELECT event_store.unregister_upcaster('shop.orders', 'T', 3) $$),
    E'22023\nwithout the upcaster of type "T" from schema version 3 there would be a hole\nThere are upcasters from schema versions 2 to 4.\nOnly the first and the last can be unregistered; register_upcaster() can put another function in place of any.\nshop.orders',
    'so is making one');
SELECT lives_ok($$ SELECT event_store.register_upcaster('shop.orders', 'U', 9, 'shop.good(jsonb)') $$, 'another type has a chain of its own');
SELECT lives_ok($$ SELECT event_store.register_upcaster('shop.others', 'T', 9, 'shop.good(jsonb)') $$, 'so has another event table');

-- Event types.
SELECT is(pg_temp.rows_of(format('SELECT event_store.%s', command)), expected, command)
  FROM (VALUES ($$register_event_type('shop.orders', 'T')$$, '("")'),
               ($$register_event_type('shop.orders', 'T', 'a description', 'a team', '{"example": 1}')$$, '("")'),
               ($$register_event_type('shop.orders', 'Large', repeat('x', 100000), NULL, to_jsonb(repeat('y', 100000)))$$, '("")'),
               ($$register_event_type('shop.others', 'T', 'elsewhere')$$, '("")'),
               ($$register_event_type('shop.orders', NULL)$$, '22004: type must not be null'),
               ($$register_event_type('shop.orders', '')$$, '22023: type must not be empty'),
               ($$register_event_type('shop.orders', repeat('ü', 128))$$, '22023: type is too long: 256 bytes'),
               ($$register_event_type(NULL, 'T')$$, '22004: event_table must not be null'),
               ($$unregister_event_type('shop.orders', NULL)$$, '22004: type must not be null'),
               ($$unregister_event_type('shop.orders', 'nothing')$$, '(f)')) AS c(command, expected);
SELECT is(pg_temp.rows_of($$ SELECT event_table, type, description, owner_team, example FROM event_store.event_types WHERE type = 'T' ORDER BY event_table::text $$),
    '(shop.orders,T,"a description","a team","{""example"": 1}") (shop.others,T,elsewhere,,)', 'registered again, a type is described anew');
SELECT is((SELECT length(description) + length(example #>> '{}') FROM event_store.event_types WHERE type = 'Large'), 200000, 'at any length');
SELECT is(pg_temp.rows_of($$ SELECT event_store.register_event_type('shop.orders', 'T') $$), '("")', 'and again');
SELECT is(pg_temp.rows_of($$ SELECT description, owner_team, example FROM event_store.event_types WHERE type = 'T' AND event_table = 'shop.orders'::regclass $$),
    '(,,)', 'what is not said any more is forgotten');
SELECT is(event_store.unregister_event_type('shop.orders', 'Large'), true, 'unregister_event_type()');
SELECT is((SELECT string_agg(event_table || ' ' || type, ', ' ORDER BY event_table::text) FROM event_store.event_types), 'shop.orders T, shop.others T', 'and it is gone');
SELECT is((SELECT count(*) FROM event_store.upcasters WHERE type = 'T'), 4::bigint, 'the upcasters stay');
RESET ROLE;

-- Who may.
CREATE TABLE calls (name text, command text);
GRANT SELECT ON calls TO PUBLIC;
INSERT INTO calls VALUES
    ('register_event_type', $$ SELECT event_store.register_event_type('shop.orders', 'T') $$),
    ('unregister_event_type', $$ SELECT event_store.unregister_event_type('shop.orders', 'T') $$),
    ('register_upcaster', $$ SELECT event_store.register_upcaster('shop.orders', 'T', 2, 'shop.good(jsonb)') $$),
    ('unregister_upcaster', $$ SELECT event_store.unregister_upcaster('shop.orders', 'T', 2) $$);
SET ROLE es_register_reader;
SELECT throws_ok(command, '42501', 'must be owner of table orders', 'whoever may read and append: ' || name) FROM calls;
SELECT throws_ok(command, '42501', NULL, 'nobody else ' || description)
  FROM (VALUES ('SELECT * FROM event_store.registered_upcasters', 'reads the table'),
               ('SELECT * FROM event_store.registered_event_types', 'reads the other table'),
               ($$ INSERT INTO event_store.registered_upcasters VALUES ('shop.orders', 'T', 2, 'shop.good(jsonb)') $$, 'writes it'),
               ($$ INSERT INTO event_store.registered_event_types VALUES ('shop.orders', 'T') $$, 'writes the other'),
               ('DELETE FROM event_store.registered_upcasters', 'deletes from it'),
               ($$ INSERT INTO event_store.upcasters VALUES ('shop.orders', 'T', 2, 'shop.good(jsonb)') $$, 'writes through the view')) AS c(command, description);
SELECT is((SELECT string_agg(DISTINCT event_table::text, ' ') FROM event_store.upcasters), 'shop.orders', 'the view upcasters shows those of tables that may be read');
SELECT is((SELECT string_agg(DISTINCT event_table::text, ' ') FROM event_store.event_types), 'shop.orders', 'so does the view event_types');
RESET ROLE;
BEGIN READ ONLY;
SELECT throws_ok(command, '25006', format('cannot execute %s() in a read-only transaction', name), 'read-only: ' || name) FROM calls;
COMMIT;
-- Rows by SQL, as in a restore: for own event tables only.
GRANT INSERT ON event_store.registered_upcasters, event_store.registered_event_types TO es_register_reader, es_register_owner;
SET ROLE es_register_reader;
SELECT throws_ok($$ INSERT INTO event_store.registered_upcasters VALUES ('shop.orders', 'X', 1, 'shop.good(jsonb)') $$, '42501',
    'must be owner of table shop.orders', 'an upcaster for somebody else''s event table is refused');
SELECT throws_ok($$ INSERT INTO event_store.registered_event_types VALUES ('shop.orders', 'X') $$, '42501',
    'must be owner of table shop.orders', 'so is a type');
SELECT throws_ok($$ INSERT INTO event_store.registered_upcasters VALUES (4294967290, 'X', 1, 'shop.good(jsonb)') $$, '42501', NULL, 'and a table that there is not');
SET ROLE es_register_owner;
SELECT lives_ok($$ INSERT INTO event_store.registered_upcasters VALUES ('shop.orders', 'X', 1, 'shop.good(jsonb)') $$, 'one for an own event table is not');
SELECT lives_ok($$ INSERT INTO event_store.registered_event_types VALUES ('shop.orders', 'X') $$, 'nor is a type');
SELECT throws_ok($$ INSERT INTO event_store.registered_upcasters VALUES ('shop.orders', 'X', 0, 'shop.good(jsonb)') $$, '23514', NULL, 'with a version that there can be');
RESET ROLE;
SELECT lives_ok($$ UPDATE event_store.registered_upcasters SET event_table = 'shop.others' WHERE type = 'X' $$, 'a superuser may do as he likes');
CREATE TABLE no_columns ();
CREATE TRIGGER t AFTER INSERT ON no_columns FOR EACH ROW EXECUTE FUNCTION event_store._note_upcaster();
SELECT throws_ok('INSERT INTO no_columns DEFAULT VALUES', '39P01', 'this function must be called as an AFTER ROW trigger on event_store.registered_upcasters',
    'the trigger function works on its own table only');
DROP TABLE no_columns;
REVOKE ALL ON event_store.registered_upcasters, event_store.registered_event_types FROM es_register_reader, es_register_owner;

-- Renamed, moved, dropped.
ALTER TABLE shop.orders RENAME TO renamed;
ALTER TABLE shop.renamed SET SCHEMA public;
SELECT is(pg_temp.rows_of($$ SELECT schema_version, data FROM event_store.read_stream('renamed', 'o-1') $$), '(5,"{""odd"": true}")', 'a renamed event table keeps its upcasters');
SELECT is((SELECT count(*) FROM event_store.event_types WHERE event_table = 'renamed'::regclass), 2::bigint, 'and its types');
SELECT event_store.drop_event_table('renamed') \g /dev/null
SELECT is((SELECT string_agg(DISTINCT event_table::text, ' ') FROM event_store.registered_upcasters), 'shop.others', 'a dropped one loses them');
SELECT is((SELECT string_agg(DISTINCT event_table::text, ' ') FROM event_store.registered_event_types), 'shop.others', 'and its types');
BEGIN;
DROP TABLE shop.others;
ROLLBACK;
SELECT is((SELECT count(*) FROM event_store.registered_upcasters), 2::bigint, 'a drop that is rolled back takes nothing');

DROP TABLE calls;
DROP OWNED BY es_register_owner, es_register_reader CASCADE;
SELECT is_empty('SELECT * FROM event_store.registered_upcasters', 'DROP OWNED drops the upcasters with the tables');
DROP SCHEMA IF EXISTS shop CASCADE;
DROP ROLE es_register_owner, es_register_reader;
SELECT * FROM finish();
