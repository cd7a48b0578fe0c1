-- DDL that would break an event table's guards is refused, for superusers too;
-- what a user may want otherwise stays allowed, and appends go on after it.
SET client_min_messages = warning;
SELECT plan(347);

\ir include/error_of.sql
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;

CREATE ROLE es_ddl_owner;
CREATE SCHEMA shop AUTHORIZATION es_ddl_owner;
GRANT CREATE ON SCHEMA public TO es_ddl_owner;
GRANT EXECUTE ON FUNCTION note() TO es_ddl_owner;
SET ROLE es_ddl_owner;
SELECT event_store.create_event_table('shop.orders') \g /dev/null
SELECT event_store.append_batch('shop.orders', 'order-1', '{A,B,C}', '{1,2,3}') \g /dev/null
CREATE TABLE shop.audit (id int PRIMARY KEY, data jsonb);
INSERT INTO shop.audit VALUES (1, '1');
SELECT event_store.make_append_only('shop.audit') \g /dev/null
CREATE TABLE shop.same (LIKE shop.orders INCLUDING ALL);
CREATE TABLE shop.parted (LIKE shop.orders) PARTITION BY RANGE (position);
CREATE TABLE shop.ordinary (a int);
CREATE SEQUENCE shop.other_sequence;
RESET ROLE;

CREATE TABLE refused (command text, state text, detail text);
GRANT SELECT ON refused TO PUBLIC;
INSERT INTO refused VALUES
    -- triggers
    ('ALTER TABLE shop.orders DISABLE TRIGGER event_store_append_only', 'SE005', 'Guard "event_store_append_only" is disabled.'),
    ('ALTER TABLE shop.orders DISABLE TRIGGER event_store_append_only_row', 'SE005', 'Guard "event_store_append_only_row" is disabled.'),
    ('ALTER TABLE shop.orders DISABLE TRIGGER zzz_event_store_append', 'SE005', 'Guard "zzz_event_store_append" is disabled.'),
    ('ALTER TABLE shop.orders DISABLE TRIGGER USER', 'SE005', 'Guard "event_store_append_only" is disabled.'),
    ('ALTER TABLE shop.orders DISABLE TRIGGER ALL', 'SE005', 'Guard "event_store_append_only" is disabled.'),
    ('ALTER TABLE shop.orders ENABLE TRIGGER event_store_append_only', 'SE005', 'Guard "event_store_append_only" is not ENABLE ALWAYS.'),
    ('ALTER TABLE shop.orders ENABLE TRIGGER event_store_append_only_row', 'SE005', 'Guard "event_store_append_only_row" is not ENABLE ALWAYS.'),
    ('ALTER TABLE shop.orders ENABLE TRIGGER ALL', 'SE005', 'Guard "event_store_append_only" is not ENABLE ALWAYS.'),
    ('ALTER TABLE shop.orders ENABLE TRIGGER USER', 'SE005', 'Guard "event_store_append_only" is not ENABLE ALWAYS.'),
    ('ALTER TABLE shop.orders ENABLE REPLICA TRIGGER event_store_append_only', 'SE005', 'Guard "event_store_append_only" is not ENABLE ALWAYS.'),
    ('ALTER TABLE shop.orders ENABLE REPLICA TRIGGER zzz_event_store_append', 'SE005', NULL),
    ('ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER zzz_event_store_append', 'SE005', NULL),
    ('ALTER TABLE shop.orders DISABLE TRIGGER event_store_append_only, DISABLE TRIGGER event_store_append_only_row', 'SE005',
        'Guard "event_store_append_only" is disabled.'),
    ('DROP TRIGGER event_store_append_only ON shop.orders', 'SE005', 'It is what keeps the table append-only.'),
    ('DROP TRIGGER event_store_append_only_row ON shop.orders', 'SE005', 'It is what keeps the table append-only.'),
    ('DROP TRIGGER zzz_event_store_append ON shop.orders', 'SE005', 'It is what keeps the table append-only.'),
    ('DROP TRIGGER event_store_append_only ON shop.audit', 'SE005', 'It is what keeps the table append-only.'),
    ('ALTER TABLE shop.audit DISABLE TRIGGER ALL', 'SE005', 'Guard "event_store_append_only" is disabled.'),
    ('ALTER TRIGGER event_store_append_only ON shop.orders RENAME TO x', 'SE005', NULL),
    ('ALTER TRIGGER event_store_append_only_row ON shop.orders RENAME TO x', 'SE005', NULL),
    ('ALTER TRIGGER zzz_event_store_append ON shop.orders RENAME TO aaa', 'SE005', NULL),
    ('ALTER TRIGGER event_store_append_only ON shop.audit RENAME TO x', 'SE005', NULL),
    ('CREATE TRIGGER zzzz BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION note()', 'SE005',
     'Trigger "zzzz" would fire behind the guard "zzz_event_store_append", which has to be the last.'),
    ('CREATE TRIGGER "zzz_event_store_append2" BEFORE INSERT OR UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION note()', 'SE005', NULL),
    ('CREATE OR REPLACE TRIGGER event_store_append_only BEFORE UPDATE ON shop.orders FOR EACH STATEMENT EXECUTE FUNCTION note()', 'SE005', NULL),
    ('CREATE OR REPLACE TRIGGER event_store_append_only_row BEFORE UPDATE OR DELETE ON shop.orders FOR EACH ROW EXECUTE FUNCTION note()',
        'SE005', NULL),
    ('CREATE OR REPLACE TRIGGER zzz_event_store_append BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION note()', 'SE005', NULL),
    ('CREATE OR REPLACE TRIGGER zzz_event_store_append BEFORE INSERT ON shop.orders FOR EACH ROW WHEN (NEW.type = ''x'') EXECUTE FUNCTION event_store._guard_insert()', 'SE005', NULL),
    ('CREATE OR REPLACE TRIGGER event_store_append_only BEFORE UPDATE OR DELETE ON shop.orders FOR EACH STATEMENT EXECUTE FUNCTION event_store._guard_change()', 'SE005', NULL),
    ('CREATE OR REPLACE TRIGGER event_store_append_only BEFORE UPDATE OR DELETE ON shop.audit FOR EACH STATEMENT EXECUTE FUNCTION note()',
        'SE005', NULL),
    ('DROP FUNCTION event_store._guard_change() CASCADE', '2BP01', NULL),
    -- rules and relatives
    ('CREATE RULE r AS ON DELETE TO shop.orders DO INSTEAD NOTHING', 'SE005', 'It has a rule.'),
    ('CREATE RULE r AS ON UPDATE TO shop.orders DO ALSO NOTIFY x', 'SE005', 'It has a rule.'),
    ('CREATE RULE r AS ON INSERT TO shop.orders WHERE NEW.type = ''x'' DO INSTEAD NOTHING', 'SE005', 'It has a rule.'),
    ('CREATE RULE r AS ON DELETE TO shop.audit DO INSTEAD NOTHING', 'SE005', 'It has a rule.'),
    ('ALTER TABLE shop.orders INHERIT shop.same', 'SE005', 'It inherits from another table.'),
    ('ALTER TABLE shop.same INHERIT shop.orders', 'SE005', 'Another table inherits from it.'),
    ('CREATE TABLE shop.child () INHERITS (shop.orders)', 'SE005', 'Another table inherits from it.'),
    ('CREATE TABLE shop.child (LIKE shop.same) INHERITS (shop.orders)', 'SE005', 'Another table inherits from it.'),
    ('CREATE TEMP TABLE child () INHERITS (shop.orders)', 'SE005', 'Another table inherits from it.'),
    ('CREATE SCHEMA made CREATE TABLE child () INHERITS (shop.orders)', 'SE005', 'Another table inherits from it.'),
    ('ALTER TABLE shop.parted ATTACH PARTITION shop.orders DEFAULT', 'SE005', 'It is a partition.'),
    ('ALTER TABLE shop.parted ATTACH PARTITION shop.orders FOR VALUES FROM (0) TO (1000)', 'SE005', 'It is a partition.'),
    ('CREATE TABLE shop.child () INHERITS (shop.audit)', 'SE005', 'Another table inherits from it.'),
    -- rewriting what is stored
    ('ALTER TABLE shop.orders ALTER data TYPE jsonb USING ''{}''', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.orders ALTER metadata TYPE jsonb USING NULL', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.orders ALTER version TYPE bigint USING version + 1', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.orders ALTER position TYPE numeric', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.orders ALTER data TYPE json', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.orders ALTER stream TYPE varchar(600)', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.orders ADD note text DEFAULT ''x'', ALTER data TYPE jsonb USING ''{}''', 'SE002',
        'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.audit ALTER data TYPE jsonb USING ''{}''', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.audit ALTER id TYPE bigint', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.orders SET UNLOGGED', 'SE002', 'The command would rewrite every stored row.'),
    ('ALTER TABLE shop.audit SET UNLOGGED', 'SE002', 'The command would rewrite every stored row.'),
    -- columns
    ('ALTER TABLE shop.orders ALTER correlation_id TYPE varchar', 'SE005', 'Column "correlation_id" has type character varying, not text.'),
    ('ALTER TABLE shop.orders ALTER stream TYPE text COLLATE "POSIX"', 'SE005', 'Column "stream" does not have the collation "C".'),
    ('ALTER TABLE shop.orders ALTER type TYPE text COLLATE "default"', 'SE005', 'Column "type" does not have the collation "C".'),
    ('ALTER TABLE shop.orders ALTER position SET DEFAULT 7', 'SE005', 'Column "position" has a default or is generated.'),
    ('ALTER TABLE shop.orders ALTER position SET DEFAULT nextval(''shop.orders_position_seq'')', 'SE005',
        'Column "position" has a default or is generated.'),
    ('ALTER TABLE shop.orders ALTER position ADD GENERATED ALWAYS AS IDENTITY', 'SE005', NULL),
    ('ALTER TABLE shop.orders ALTER version ADD GENERATED BY DEFAULT AS IDENTITY', 'SE005', 'Column "version" has a default or is generated.');
INSERT INTO refused
    SELECT format('ALTER TABLE shop.orders DROP COLUMN %s CASCADE', c), 'SE005', format('Column "%s" is missing.', c)
      FROM unnest('{position,stream,version,event_id,type,schema_version,data,metadata,correlation_id,causation_id,occurred_at,recorded_at}'::text[]) AS c
    UNION ALL
    SELECT format('ALTER TABLE shop.orders RENAME %s TO renamed', c), 'SE005', format('Column "%s" is missing.', c)
      FROM unnest('{position,stream,version,event_id,type,schema_version,data,metadata,correlation_id,causation_id,occurred_at,recorded_at}'::text[]) AS c
    UNION ALL
    SELECT format('ALTER TABLE shop.orders ALTER %s DROP NOT NULL', c), 'SE005', format('Column "%s" is not NOT NULL.', c)
      FROM unnest('{stream,version,event_id,type,schema_version,data,recorded_at}'::text[]) AS c;
INSERT INTO refused VALUES
    ('ALTER TABLE shop.orders ALTER position DROP NOT NULL', '42P16', NULL),
    -- constraints
    ('ALTER TABLE shop.orders DROP CONSTRAINT orders_pkey', 'SE005', 'The unique index on (position) is missing or not valid.'),
    ('ALTER TABLE shop.orders DROP CONSTRAINT orders_stream_version_key', 'SE005',
        'The unique index on (stream, version) is missing or not valid.'),
    ('ALTER TABLE shop.orders DROP CONSTRAINT orders_event_id_key', 'SE005', 'The unique index on (event_id) is missing or not valid.'),
    ('DROP INDEX shop.orders_event_id_key', '2BP01', NULL),
    -- sequence
    ('ALTER SEQUENCE shop.orders_position_seq RESTART', 'SE005', 'Its sequence stands at 0, below the greatest position, 3.'),
    ('ALTER SEQUENCE shop.orders_position_seq RESTART WITH 2', 'SE005', 'Its sequence stands at 1, below the greatest position, 3.'),
    ('ALTER SEQUENCE shop.orders_position_seq CACHE 32', 'SE005', 'Its sequence has CACHE 32, not 1.'),
    ('ALTER SEQUENCE shop.orders_position_seq INCREMENT 2', 'SE005', 'Its sequence has INCREMENT 2, not 1.'),
    ('ALTER SEQUENCE shop.orders_position_seq INCREMENT -1', 'SE005', NULL),
    ('ALTER SEQUENCE shop.orders_position_seq CYCLE', 'SE005', 'Its sequence is CYCLE.'),
    ('ALTER SEQUENCE shop.orders_position_seq MINVALUE -10', 'SE005', NULL),
    ('ALTER SEQUENCE shop.orders_position_seq MAXVALUE 1000', 'SE005', NULL),
    ('ALTER SEQUENCE shop.orders_position_seq AS integer MAXVALUE 1000', 'SE005', NULL),
    ('ALTER SEQUENCE shop.orders_position_seq SET UNLOGGED', 'SE005', 'Its sequence is not permanent.'),
    ('ALTER SEQUENCE shop.orders_position_seq OWNED BY NONE', 'SE005', 'Column "position" owns no sequence.'),
    ('ALTER SEQUENCE shop.orders_position_seq OWNED BY shop.ordinary.a', 'SE005', NULL),
    ('ALTER SEQUENCE shop.other_sequence OWNED BY shop.orders.position', 'SE005', 'Column "position" owns more than one sequence.'),
    ('CREATE SEQUENCE shop.third OWNED BY shop.orders.position', 'SE005', 'Column "position" owns more than one sequence.'),
    ('DROP SEQUENCE shop.orders_position_seq', 'SE005', NULL);

-- With the same words, the owner and a superuser.
CREATE FUNCTION pg_temp.state() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', event_store.check_guards('shop.orders'), event_store.check_guards('shop.audit'),
                     (SELECT md5(string_agg(o::text, ',' ORDER BY position)) FROM shop.orders o), (SELECT array_agg(a) FROM shop.audit a)) $$;
CREATE TEMP TABLE before AS SELECT pg_temp.state() AS state;
SELECT is(split_part(error, E'\n', 1) || CASE WHEN detail IS NULL THEN '' ELSE ' ' || split_part(error, E'\n', 3) END,
          concat_ws(' ', state, detail), command)
  FROM refused, pg_temp.error_of(command) AS error
 WHERE command !~ 'CREATE SEQUENCE';
SET ROLE es_ddl_owner;
SELECT throws_ok(command, state, NULL, 'by the owner: ' || command) FROM refused WHERE command !~ 'DROP FUNCTION|SCHEMA made';
RESET ROLE;
SELECT alike(pg_temp.error_of('ALTER TABLE shop.orders DISABLE TRIGGER ALL'),
             E'SE005\nthe command would leave the append-only table "orders" unguarded\nGuard "event_store_append_only" is disabled.\n%\nshop.orders',
             'the error names the table');
SELECT is(pg_temp.error_of('DROP TRIGGER zzz_event_store_append ON shop.orders'),
          E'SE005\ncannot drop guard "zzz_event_store_append" of table "orders"\nIt is what keeps the table append-only.\nDrop the table, if you want to be rid of it.\nshop.orders',
          'the error of DROP TRIGGER names the guard and the table');
SET session_replication_role = replica;
SELECT throws_ok('ALTER TABLE shop.orders DISABLE TRIGGER ALL', 'SE005', NULL,
    'session_replication_role = replica does not get past the event triggers');
SELECT throws_ok('DROP TRIGGER event_store_append_only ON shop.orders', 'SE005', NULL, 'nor past the one that looks at drops');
SELECT throws_ok('ALTER TABLE shop.orders ALTER data TYPE jsonb USING ''{}''', 'SE002', NULL, 'nor past the one that looks at rewrites');
RESET session_replication_role;
SELECT is(pg_temp.state(), state, 'after all that nothing has changed, and all is guarded') FROM before;

-- What replaces a guard by the same leaves it enabled as it was, or is refused.
SELECT throws_ok('CREATE OR REPLACE TRIGGER event_store_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON shop.orders FOR EACH STATEMENT EXECUTE FUNCTION event_store._guard_change()',
                 'SE005', NULL, 'a guard replaced by itself, but not ENABLE ALWAYS');
SELECT event_store.guard('shop.orders') \g /dev/null

-- A user's own triggers are the user's, whatever their names.
CREATE TRIGGER event_store_append_only BEFORE INSERT ON shop.ordinary FOR EACH ROW EXECUTE FUNCTION note();
SELECT lives_ok('DROP TRIGGER event_store_append_only ON shop.ordinary',
    'a trigger of an ordinary table that happens to have a guard''s name can be dropped');

-- What stays allowed; after each command an append must work, and all be guarded.
CREATE TEMP TABLE allowed (n serial, command text);
GRANT SELECT ON allowed TO es_ddl_owner;
INSERT INTO allowed (command) VALUES
    ('ALTER TABLE shop.orders ADD COLUMN note text'),
    ('ALTER TABLE shop.orders ADD COLUMN tag text NOT NULL DEFAULT ''none'''),
    ('ALTER TABLE shop.orders ADD COLUMN stamped timestamptz DEFAULT clock_timestamp()'),
    ('ALTER TABLE shop.orders ADD COLUMN amount numeric GENERATED ALWAYS AS (length(data::text)) STORED'),
    ('ALTER TABLE shop.orders ALTER COLUMN tag SET DEFAULT ''some'''),
    ('ALTER TABLE shop.orders RENAME COLUMN note TO remark'),
    ('ALTER TABLE shop.orders DROP COLUMN remark'),
    ('ALTER TABLE shop.orders DROP COLUMN stamped, DROP COLUMN amount'),
    ('ALTER TABLE shop.orders ALTER COLUMN tag DROP NOT NULL'),
    ('CREATE INDEX ON shop.orders USING gin (data)'),
    ('CREATE UNIQUE INDEX once ON shop.orders ((data ->> ''number'')) WHERE type = ''Numbered'''),
    ('DROP INDEX shop.once'),
    ('DROP INDEX shop.orders_correlation_id_position_idx, shop.orders_causation_id_position_idx'),
    ('DROP INDEX shop.orders_category_position_idx'),
    ('DROP INDEX shop.orders_recorded_at_idx'),
    ('CREATE INDEX ON shop.orders (event_store.category(stream), position)'),
    ('ALTER TABLE shop.orders ADD CONSTRAINT small CHECK (length(type) < 100)'),
    ('ALTER TABLE shop.orders DROP CONSTRAINT small'),
    ('ALTER TABLE shop.orders ADD CONSTRAINT ref FOREIGN KEY (tag) REFERENCES shop.tags NOT VALID'),
    ('ALTER TABLE shop.orders DROP CONSTRAINT ref'),
    ('CREATE TABLE shop.details (event_id uuid REFERENCES shop.orders (event_id), stream text, version bigint, FOREIGN KEY (stream, version) REFERENCES shop.orders (stream, version))'),
    ('DROP TABLE shop.details'),
    ('CREATE TRIGGER mine BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION note()'),
    ('ALTER TABLE shop.orders DISABLE TRIGGER mine'),
    ('ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER mine'),
    ('ALTER TRIGGER mine ON shop.orders RENAME TO mine_too'),
    ('DROP TRIGGER mine_too ON shop.orders'),
    ('CREATE TRIGGER zzzz AFTER INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION note()'),
    ('CREATE TRIGGER zzzzz BEFORE INSERT ON shop.orders FOR EACH STATEMENT EXECUTE FUNCTION note()'),
    ('ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER event_store_append_only'),
    ('ALTER TABLE shop.orders ENABLE TRIGGER zzz_event_store_append'),
    ('COMMENT ON TABLE shop.orders IS ''events'''),
    ('GRANT SELECT ON shop.orders TO PUBLIC'),
    ('ALTER TABLE shop.orders SET (fillfactor = 90, autovacuum_enabled = off)'),
    ('ALTER TABLE shop.orders CLUSTER ON orders_pkey'),
    ('CLUSTER shop.orders'),
    ('REINDEX TABLE shop.orders'),
    ('ANALYZE shop.orders'),
    ('CREATE STATISTICS shop.st ON stream, type FROM shop.orders'),
    ('ALTER TABLE shop.orders REPLICA IDENTITY FULL'),
    ('ALTER TABLE shop.orders ALTER data SET STORAGE EXTERNAL'),
    ('ALTER SEQUENCE shop.orders_position_seq RESTART WITH 1000'),
    ('ALTER SEQUENCE shop.orders_position_seq RENAME TO numbers'),
    ('ALTER INDEX shop.orders_pkey RENAME TO by_position'),
    ('ALTER TABLE shop.orders RENAME CONSTRAINT orders_event_id_key TO by_event_id'),
    ('ALTER TABLE shop.orders SET TABLESPACE pg_default'),
    ('CREATE POLICY all_rows ON shop.orders USING (true)'),
    ('ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY'),
    ('ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY'),
    ('ALTER TABLE shop.orders NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY'),
    ('CREATE VIEW shop.seen AS SELECT * FROM shop.orders'),
    ('CREATE RULE r AS ON INSERT TO shop.seen DO INSTEAD INSERT INTO shop.orders (stream, type, data) VALUES (NEW.stream, NEW.type, NEW.data)'),
    ('ALTER TABLE shop.audit ADD COLUMN note text DEFAULT ''x''');
CREATE TABLE shop.tags (tag text PRIMARY KEY);
INSERT INTO shop.tags VALUES ('some');
ALTER TABLE shop.tags OWNER TO es_ddl_owner;
CREATE FUNCTION pg_temp.works_after(command text, name text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    before bigint := event_store.stream_version(name::regclass, 'order-1');
    tab    oid := name::regclass;
BEGIN
    RETURN NEXT lives_ok(command, command);
    PERFORM event_store.append(tab::regclass, 'order-1', 'T', '{}', before);
    EXECUTE format('INSERT INTO %s (stream, type, data, version) VALUES (''order-1'', ''T'', ''{}'', %s)', tab::regclass, before + 2);
    RETURN NEXT is(event_store.check_guards(tab::regclass) || event_store.stream_version(tab::regclass, 'order-1')::text, NULL, 'all is guarded after it, and append and INSERT go on');
EXCEPTION WHEN OTHERS THEN
    RETURN NEXT fail(format('append and INSERT go on after it: %s %s', SQLSTATE, SQLERRM));
END $$;
SET ROLE es_ddl_owner;
SELECT t FROM allowed, pg_temp.works_after(command, 'shop.orders') AS t;
RESET ROLE;
SELECT t FROM (VALUES ('ALTER TABLE shop.orders RENAME TO ordered', 'shop.orders'),
                      ('ALTER SCHEMA shop RENAME TO market', 'shop.ordered'),
                      ('ALTER TABLE market.ordered SET SCHEMA public', 'market.ordered'),
                      ('ALTER TABLE public.ordered OWNER TO CURRENT_USER', 'public.ordered')) AS c(command, name),
       pg_temp.works_after(command, name) AS t;
SELECT is((SELECT array_agg(data ORDER BY position) FROM (SELECT * FROM ordered ORDER BY position LIMIT 3) o), '{1,2,3}'::jsonb[],
          'the events are as they were all the time');
SELECT is((SELECT array_agg(indisvalid) FROM pg_index WHERE indrelid = 'ordered'::regclass AND indisunique), '{t,t,t}',
    'so are the unique indexes');

DROP SCHEMA market CASCADE;
DROP TABLE ordered;
DROP OWNED BY es_ddl_owner;
DROP ROLE es_ddl_owner;
SELECT * FROM finish();
