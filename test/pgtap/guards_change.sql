-- UPDATE, DELETE, TRUNCATE and MERGE are refused, for everybody and always; on
-- event tables, and on what make_append_only() has made append-only.
SET client_min_messages = warning;
SELECT plan(185);

\ir include/error_of.sql

CREATE ROLE es_change_owner;
CREATE ROLE es_change_other;
CREATE SCHEMA shop AUTHORIZATION es_change_owner;
GRANT USAGE ON SCHEMA shop TO es_change_other;
SET ROLE es_change_owner;
SELECT event_store.create_event_table('shop.orders') \g /dev/null
SELECT event_store.append_batch('shop.orders', 'order-1', '{A,B,C}', '{1,2,3}') \g /dev/null
CREATE TABLE shop.audit (id int PRIMARY KEY, data jsonb, stream text);
INSERT INTO shop.audit VALUES (1, '1', 'order-1'), (2, '2', 'order-1');
SELECT event_store.make_append_only('shop.audit') \g /dev/null
CREATE VIEW shop.window_to_it AS SELECT * FROM shop.orders;
GRANT ALL ON shop.orders, shop.audit TO es_change_other;
CREATE TABLE shop.reference (stream text);
INSERT INTO shop.reference VALUES ('order-1');
GRANT SELECT ON shop.reference TO es_change_other;
RESET ROLE;

SELECT is(pg_temp.error_of(command), format(E'SE002\ncannot %s "%s": it is append-only\nWhat has been recorded is never changed, by nobody.\n'
                                            'Record what is right now as a new row.\nshop.%2$s', verb, name), verb || ' on ' || name)
  FROM (VALUES ('UPDATE', 'orders', $$ UPDATE shop.orders SET data = '9' $$),
               ('DELETE', 'orders', $$ DELETE FROM shop.orders $$),
               ('TRUNCATE', 'orders', $$ TRUNCATE shop.orders $$),
               ('UPDATE', 'audit', $$ UPDATE shop.audit SET data = '9' $$),
               ('DELETE', 'audit', $$ DELETE FROM shop.audit $$),
               ('TRUNCATE', 'audit', $$ TRUNCATE shop.audit $$)) AS c(verb, name, command);

CREATE TABLE commands (command text, description text);
GRANT SELECT ON commands TO PUBLIC;
INSERT INTO commands VALUES
    ('UPDATE shop.%s SET data = ''9''', 'UPDATE of all rows'),
    ('UPDATE shop.%s SET data = data', 'UPDATE that changes nothing'),
    ('UPDATE shop.%s SET data = ''9'' WHERE false', 'UPDATE that matches no row'),
    ('UPDATE shop.%s SET data = ''9'' WHERE stream = ''none''', 'UPDATE of a stream that does not exist'),
    ('UPDATE ONLY shop.%s t SET data = ''9'' FROM shop.reference r WHERE r.stream = t.stream', 'UPDATE ... FROM'),
    ('DELETE FROM shop.%s', 'DELETE of all rows'),
    ('DELETE FROM shop.%s WHERE false', 'DELETE that matches no row'),
    ('DELETE FROM shop.%s t USING shop.reference r WHERE r.stream = t.stream', 'DELETE ... USING'),
    ('WITH gone AS (DELETE FROM shop.%s RETURNING *) SELECT count(*) FROM gone', 'DELETE in WITH'),
    ('TRUNCATE shop.%s', 'TRUNCATE'),
    ('TRUNCATE shop.%s CASCADE', 'TRUNCATE CASCADE'),
    ('MERGE INTO shop.%s t USING shop.reference r ON t.stream = r.stream WHEN MATCHED THEN UPDATE SET data = ''9''', 'MERGE that updates'),
    ('MERGE INTO shop.%s t USING shop.reference r ON t.stream = r.stream WHEN MATCHED THEN DELETE', 'MERGE that deletes'),
    ('MERGE INTO shop.%s t USING shop.reference r ON false WHEN MATCHED THEN DELETE', 'MERGE that would delete what matches, and nothing does'),
    ('DO $d$ DECLARE c CURSOR FOR SELECT * FROM shop.%1$s FOR UPDATE; r record; BEGIN OPEN c; FETCH c INTO r; UPDATE shop.%1$s SET data = ''9'' WHERE CURRENT OF c; END $d$',
     'UPDATE WHERE CURRENT OF a cursor');

-- As superuser, owner and grantee; with all values of session_replication_role.
CREATE FUNCTION pg_temp.refuses(who text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT throws_ok(format(command, name), 'SE002', format('cannot %s "%s": it is append-only',
                         CASE WHEN command ~ 'TRUNCATE' THEN 'TRUNCATE' WHEN command ~ '(THEN |FROM gone|^)DELETE|DELETE FROM' THEN 'DELETE' ELSE 'UPDATE' END, name),
                     format('%s, %s: %s', name, who, description))
      FROM (VALUES ('orders'), ('audit')) AS t(name), public.commands $$;
SELECT pg_temp.refuses('superuser');
SET session_replication_role = replica;
SELECT pg_temp.refuses('superuser under session_replication_role = replica');
SET session_replication_role = local;
SELECT pg_temp.refuses('superuser under session_replication_role = local');
RESET session_replication_role;
SET ROLE es_change_owner;
SELECT pg_temp.refuses('owner');
SET ROLE es_change_other;
SELECT pg_temp.refuses('role with all privileges');
RESET ROLE;
SELECT throws_ok($$ UPDATE shop.window_to_it SET data = '9' $$, 'SE002', NULL, 'UPDATE through a view');
SELECT throws_ok($$ DELETE FROM shop.window_to_it $$, 'SE002', NULL, 'DELETE through a view');

-- Foreign keys that would reach in.
CREATE TABLE shop.customers (stream text PRIMARY KEY);
INSERT INTO shop.customers VALUES ('order-1'), ('order-2');
ALTER TABLE shop.orders ADD COLUMN customer text DEFAULT 'order-1' REFERENCES shop.customers ON UPDATE CASCADE ON DELETE CASCADE;
SELECT throws_ok($$ DELETE FROM shop.customers WHERE stream = 'order-1' $$, 'SE002', NULL, 'ON DELETE CASCADE does not delete events');
SELECT throws_ok($$ UPDATE shop.customers SET stream = 'x' WHERE stream = 'order-1' $$, 'SE002', NULL,
    'ON UPDATE CASCADE does not change events');
SELECT throws_ok($$ TRUNCATE shop.customers CASCADE $$, 'SE002', NULL, 'TRUNCATE CASCADE of a referenced table does not empty the event table');

SELECT is((SELECT array_agg(data ORDER BY position) FROM shop.orders), '{1,2,3}'::jsonb[], 'all events are as they were');
SELECT is((SELECT array_agg(data ORDER BY id) FROM shop.audit), '{1,2}'::jsonb[], 'so are the rows of the append-only table');
SELECT lives_ok($$ SELECT * FROM shop.orders FOR UPDATE $$, 'locking rows is no change');

-- make_append_only()
SELECT lives_ok($$ INSERT INTO shop.audit VALUES (3, '3', 's') $$, 'an append-only table takes rows');
SELECT lives_ok($$ INSERT INTO shop.audit VALUES (3, '4', 's') ON CONFLICT DO NOTHING $$, 'also with ON CONFLICT DO NOTHING');
SELECT throws_ok($$ INSERT INTO shop.audit VALUES (3, '4', 's') ON CONFLICT (id) DO UPDATE SET data = '5' $$, 'SE002', NULL,
    'but not with ON CONFLICT DO UPDATE');
SELECT is(event_store.check_guards('shop.audit'), NULL, 'check_guards() finds nothing wrong with it');
SELECT lives_ok($$ SELECT event_store.make_append_only('shop.audit') $$, 'making it append-only again changes nothing');
SELECT lives_ok($$ SELECT event_store.make_append_only('shop.orders') $$, 'an event table is append-only already');
SELECT is_empty($$ SELECT * FROM event_store.event_tables WHERE event_table = 'shop.audit'::regclass $$,
    'an append-only table is no event table');
CREATE TABLE parent (a int);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE parted (a int) PARTITION BY LIST (a);
CREATE TABLE part PARTITION OF parted DEFAULT;
CREATE UNLOGGED TABLE unlogged (a int);
CREATE TEMP TABLE temporary (a int);
CREATE TABLE ruled (a int);
CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE VIEW seen AS SELECT 1 AS a;
CREATE MATERIALIZED VIEW stored AS SELECT 1 AS a;
CREATE SEQUENCE numbers;
SELECT throws_ok(format('SELECT event_store.make_append_only(%L)', target), '42809', message, 'make_append_only() refuses ' || description)
  FROM (VALUES ('parent', '"parent" cannot be made append-only', 'a table that others inherit from'),
               ('child', '"child" cannot be made append-only', 'a table that inherits'),
               ('part', '"part" cannot be made append-only', 'a partition'),
               ('unlogged', '"unlogged" cannot be made append-only', 'an unlogged table'),
               ('temporary', '"temporary" cannot be made append-only', 'a temporary table'),
               ('ruled', '"ruled" cannot be made append-only', 'a table with a rule'),
               ('parted', '"parted" is not an ordinary table', 'a partitioned table'),
               ('seen', '"seen" is not an ordinary table', 'a view'),
               ('stored', '"stored" is not an ordinary table', 'a materialized view'),
               ('numbers', '"numbers" is not an ordinary table', 'a sequence'),
               ('pg_catalog.pg_class', '"pg_class" is a system catalog', 'a system catalog')) AS c(target, message, description);
SELECT is_empty($$ SELECT tgrelid::regclass FROM pg_trigger WHERE tgname ~ '^event_store' AND tgrelid NOT IN ('shop.orders'::regclass, 'shop.audit'::regclass) $$,
                'what was refused has no guard');
SELECT throws_ok($$ SELECT event_store.make_append_only(NULL) $$, '22004', 'target must not be null', 'make_append_only() refuses NULL');
SELECT throws_ok($$ SELECT event_store.make_append_only(4294967290::regclass) $$, '42P01', 'relation with OID 4294967290 does not exist',
                 'make_append_only() refuses an OID that is no table''s');

DROP SCHEMA shop CASCADE;
DROP ROLE es_change_owner, es_change_other;
SELECT * FROM finish();
