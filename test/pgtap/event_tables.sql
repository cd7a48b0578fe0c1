-- create_event_table(), drop_event_table(), the view event_tables, and DROP
-- EXTENSION.
SET client_min_messages = warning;
SELECT plan(91);

CREATE FUNCTION pg_temp.rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT coalesce(string_agg(q::text, '' ''), ''nothing'') FROM (%s) q', query) INTO result;
    RETURN result;
END $$;

-- What is made.
SELECT is(event_store.create_event_table('orders')::text, 'orders', 'create_event_table() returns the table');
SELECT columns_are('public', 'orders',
    '{position,stream,version,event_id,type,schema_version,data,metadata,correlation_id,causation_id,occurred_at,recorded_at}'::name[]);
SELECT is((SELECT format('%s %s%s%s', format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' ELSE 'NULL' END,
                         (SELECT ' COLLATE ' || collname FROM pg_collation c WHERE c.oid = attcollation AND collname <> 'default'),
                         (SELECT ' DEFAULT ' || pg_get_expr(adbin, adrelid) FROM pg_attrdef d WHERE d.adrelid = attrelid AND d.adnum = attnum))
             FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = name), definition, format('column %s is %s', name, definition))
  FROM (VALUES ('position', 'bigint NOT NULL'), ('stream', 'text NOT NULL COLLATE C'), ('version', 'bigint NOT NULL'), ('event_id',
      'uuid NOT NULL'), ('type', 'text NOT NULL COLLATE C'),
               ('schema_version', 'integer NOT NULL DEFAULT 1'), ('data', 'jsonb NOT NULL'), ('metadata', 'jsonb NULL'), ('correlation_id',
                   'text NULL'), ('causation_id', 'text NULL'),
               ('occurred_at', 'timestamp with time zone NULL'), ('recorded_at', 'timestamp with time zone NOT NULL')) AS c(name, definition);
SELECT set_eq($$ SELECT regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX \w+ ON public.orders USING ', '\1') || CASE WHEN indisprimary THEN ' PRIMARY' ELSE '' END
                   FROM pg_index WHERE indrelid = 'orders'::regclass $$,
              ARRAY['UNIQUE btree ("position") PRIMARY', 'UNIQUE btree (stream, version)', 'UNIQUE btree (event_id)',
                  'btree (event_store.category(stream), "position")',
                    'btree (correlation_id, "position") WHERE (correlation_id IS NOT NULL)',
                        'btree (causation_id, "position") WHERE (causation_id IS NOT NULL)',
                    'brin (recorded_at) WITH (autosummarize=''on'', pages_per_range=''32'')'], 'its indexes');
SELECT is(pg_temp.rows_of($$ SELECT tgname, tgenabled, tgfoid::regproc FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal ORDER BY tgname $$),
          '(event_store_append_only,A,event_store._guard_change) (event_store_append_only_row,A,event_store._guard_change) (zzz_event_store_append,O,event_store._guard_insert)',
          'its guards; those against changes are ENABLE ALWAYS');
SELECT is(pg_temp.rows_of($$ SELECT seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle FROM pg_sequence WHERE seqrelid = 'orders_position_seq'::regclass $$),
          format('(bigint,1,1,1,%s,1,f)', 2 ^ 47 - 1), 'its sequence');
SELECT is(pg_get_serial_sequence('orders', 'position'), 'public.orders_position_seq', 'which the column owns');
SELECT is_empty($$ SELECT 1 FROM pg_depend WHERE objid IN ('orders'::regclass, 'orders_position_seq'::regclass) AND deptype = 'e' $$,
    'neither is a member of the extension');
SELECT is(event_store.check_guards('orders'), NULL, 'check_guards() finds nothing wrong with it');

-- Names.
CREATE SCHEMA shop;
CREATE SCHEMA "My Shop";
SELECT is(event_store.create_event_table(name)::text, expected, 'a table named ' || name)
  FROM (VALUES ('shop.orders', 'shop.orders'), ('"Quoted Name"', '"Quoted Name"'), ('"My Shop"."a ""b"" ''c''"', '"My Shop"."a ""b"" ''c''"'),
      ('UPPER', 'upper'),
               ('shop."select"', 'shop."select"'), ('ünï', '"ünï"'), ('"with.dot"', '"with.dot"'), (' spaced ', 'spaced')) AS c(name, expected);
SELECT lives_ok(format($$ SELECT event_store.append(%L, 'a-1', 'T', '{}', 0), event_store.read_all(%1$L) $$, t), 'and appends to ' || t)
  FROM unnest('{shop.orders,"\"Quoted Name\"","\"My Shop\".\"a \"\"b\"\" ''c''\"",upper,"shop.\"select\"",ünï,"\"with.dot\"",spaced}'::text[]) AS t;
SELECT is(event_store.create_event_table(repeat('x', 63))::text, repeat('x', 63), 'a name of 63 bytes');
SELECT is((SELECT array_agg(last_version) FROM event_store.append(repeat('x', 63)::regclass, 'a-1', 'T', '{}')), '{1}',
    'whose sequence gets a shortened one');
SET search_path = shop, public;
SELECT event_store.create_event_table('here') \g /dev/null
SELECT has_table('shop', 'here', 'a name without a schema is made where CREATE TABLE would make it');
RESET search_path;
CREATE TABLE taken (a int);
CREATE SEQUENCE busy_position_seq;
SELECT lives_ok($$ SELECT event_store.create_event_table('busy') $$, 'a sequence''s name that is taken is no obstacle');
SELECT throws_ok(format('SELECT event_store.create_event_table(%s)', name), state, message, description)
  FROM (VALUES ('NULL', '22004', 'name must not be null', 'no name'),
               ('''orders''', '42P07', 'relation "orders" already exists', 'a name that an event table has'),
               ('''taken''', '42P07', 'relation "taken" already exists', 'a name that another table has'),
               ('''taken'', true', 'SE004', '"taken" is not an event table', 'if_not_exists with another table'),
               ('''nowhere.orders''', '3F000', 'schema "nowhere" does not exist', 'a schema that is not there'),
               ('''a.b.c''', '42602', NULL, 'a name of three parts'),
               ('''''', '42602', NULL, 'an empty name'),
               ('''two words''', '42602', NULL, 'two words without quotes'),
               ('''"open''', '42602', NULL, 'a quote that is not closed'),
               ('''pg_temp.orders''', '42P16', 'an event table cannot be temporary', 'a temporary table'),
               ('''pg_catalog.orders''', '42501', NULL, 'the system''s schema')) AS c(name, state, message, description);
SELECT is(event_store.create_event_table('orders', true)::text, 'orders', 'if_not_exists returns the event table that is there');
SELECT is(event_store.create_event_table('later', if_not_exists => true)::text, 'later', 'or makes it');
SELECT is(event_store.create_event_table('x2', NULL)::text, 'x2', 'if_not_exists NULL is false');
SET search_path = pg_temp, public;
SELECT throws_ok($$ SELECT event_store.create_event_table('tmp') $$, '42P16', 'an event table cannot be temporary',
    'a temporary table by search_path');
RESET search_path;

-- Objects of the caller's in the way of what the functions use are not looked at.
CREATE SCHEMA evil;
CREATE FUNCTION evil.setval(regclass, bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$;
CREATE FUNCTION evil.evil_or(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.evil_or);
CREATE DOMAIN evil.bigint AS pg_catalog.int8 CHECK (VALUE < 0);
CREATE FUNCTION pg_temp.with_evil(command text) RETURNS text LANGUAGE plpgsql SET search_path = evil, pg_catalog, public AS $$
BEGIN
    EXECUTE command;
    RETURN 'no harm';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLERRM;
END $$;
SELECT is(pg_temp.with_evil($$ SELECT 'a'::text = 'a'::text $$), 'evil', 'with a search_path in front of which stands an operator that fails …');
SELECT is(pg_temp.with_evil(command), 'no harm', '… ' || command)
  FROM (VALUES ($$ SELECT event_store.create_event_table('public.safe') $$), ($$ SELECT event_store.append('public.safe', 'a-1', 'T', '{}') $$),
               ($$ INSERT INTO public.safe (stream, type, data) VALUES ('a-1', 'T', '{}') $$),
                   ($$ SELECT event_store.streams('public.safe', 'a') $$),
               ($$ SELECT event_store.position_at('public.safe', now()) $$), ($$ SELECT event_store.guard('public.safe') $$),
                   ($$ SELECT event_store.read_stream('public.safe', 'a-1') $$),
               ($$ SELECT event_store.read_batch('public.safe', categories => '{a}') $$),
                   ($$ SELECT event_store.save_snapshot('public.safe', 'a-1', 1, '{}') $$),
               ($$ SELECT event_store.load_snapshot('public.safe', 'a-1') $$), ('SELECT * FROM event_store.event_tables'),
                   ('SELECT * FROM event_store.mark_holders')) AS c(command);
SELECT is((SELECT atttypid FROM pg_attribute WHERE attrelid = 'safe'::regclass AND attname = 'position'), 'pg_catalog.int8'::regtype::oid,
    'and no type of that schema gets into the table');

-- The view.
ANALYZE orders;
SELECT event_store.append_batch('orders', 'a-1', '{T,T,T}', '{1,2,3}') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT owner = current_user, events_estimate, last_position, heap_bytes = pg_table_size('orders'), index_bytes = pg_indexes_size('orders'), guarded, problem
                               FROM event_store.event_tables WHERE event_table = 'orders'::regclass $$), '(t,0,3,t,t,t,)',
                                   'event_tables, of an event table');
SELECT is((SELECT events_estimate FROM event_store.event_tables WHERE event_table = 'later'::regclass), NULL, 'never analyzed: no estimate');
ANALYZE orders;
SELECT is((SELECT events_estimate FROM event_store.event_tables WHERE event_table = 'orders'::regclass), 3::bigint, 'analyzed: the estimate');
SELECT set_eq('SELECT event_table::oid FROM event_store.event_tables',
              $$ SELECT c.oid FROM pg_class c WHERE relkind = 'r' AND EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND tgname = 'zzz_event_store_append') $$, 'event_tables lists all of them, and nothing else');

-- Dropping.
SELECT event_store.save_snapshot('shop.orders', 'a-1', 1, '{}') \g /dev/null
SELECT event_store.save_snapshot('upper', 'a-1', 1, '{}') \g /dev/null
CREATE VIEW depends AS SELECT * FROM shop.orders;
SELECT throws_ok($$ SELECT event_store.drop_event_table('shop.orders') $$, '2BP01', NULL,
    'drop_event_table() does not drop what depends on the table');
SELECT lives_ok($$ SELECT event_store.drop_event_table('shop.orders', cascade => true) $$, 'but with cascade');
SELECT hasnt_table('shop', 'orders', 'the table is gone');
SELECT hasnt_view('public', 'depends', 'and the view');
SELECT hasnt_sequence('shop', 'orders_position_seq', 'and the sequence');
DROP TABLE upper;
SELECT set_eq('SELECT event_table::text FROM event_store.snapshots', '{safe}'::text[],
    'and its snapshots; those of a table dropped by DROP TABLE too, others not');
SELECT throws_ok($$ SELECT event_store.drop_event_table('taken') $$, 'SE004', '"taken" is not an event table',
    'drop_event_table() drops no other table');
SELECT has_table('taken');
SELECT lives_ok($$ DROP SCHEMA shop CASCADE $$, 'a schema with event tables can be dropped');
SELECT is(event_store.create_event_table('upper')::text, 'upper', 'a name can be used again');
SELECT is((event_store.append('upper', 'a-1', 'T', '{}', 0)).last_position, 1::bigint, 'for a new log');
SELECT is_empty($$ SELECT * FROM event_store.load_snapshot('upper', 'a-1') $$, 'without the old one''s snapshots');

-- Made, used and dropped in one transaction; and rolled back.
BEGIN;
SELECT event_store.create_event_table('brief') \g /dev/null
SELECT event_store.append('brief', 'a-1', 'T', '{}', 0) \g /dev/null
INSERT INTO brief (stream, type, data) VALUES ('a-1', 'T', '{}');
CREATE TEMP TABLE seen AS SELECT event_store.stream_version('brief', 'a-1') AS version;
SELECT event_store.drop_event_table('brief') \g /dev/null
COMMIT;
SELECT is((SELECT version FROM seen), 2::bigint, 'an event table made, used and dropped in one transaction');
BEGIN;
SELECT event_store.create_event_table('brief') \g /dev/null
SELECT event_store.append('brief', 'a-1', 'T', '{}', 0) \g /dev/null
ROLLBACK;
SELECT hasnt_table('brief');
BEGIN;
SELECT event_store.drop_event_table('orders', true) \g /dev/null
ROLLBACK;
SELECT is((event_store.append('orders', 'a-1', 'T', '{}', 3)).last_version, 4::bigint, 'a drop that is rolled back leaves the table as it was');

-- The extension stays as long as there are event tables.
SELECT throws_ok('DROP EXTENSION event_store', '2BP01', 'cannot drop extension event_store because other objects depend on it',
    'DROP EXTENSION is refused while an event table exists');
SELECT has_table('orders');
SELECT throws_ok('DROP SCHEMA event_store', '2BP01', NULL, 'nor can its schema be dropped');

SELECT * FROM finish();
