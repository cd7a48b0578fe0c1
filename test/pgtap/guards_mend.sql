-- What a superuser has broken behind the event triggers' backs: appends and
-- INSERTs find it (SE005), check_guards() tells of it, guard() mends it.
SET client_min_messages = warning;
SELECT plan(306);

\ir include/error_of.sql
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE other (a int);

ALTER EVENT TRIGGER event_store_check_ddl DISABLE;
ALTER EVENT TRIGGER event_store_check_rewrite DISABLE;
ALTER EVENT TRIGGER event_store_check_drop DISABLE;
ALTER EVENT TRIGGER event_store_check_sequence DISABLE;

-- Breaks an event table of three events by that command (%s is its name), and
-- looks at what every way in says; then mends it.
CREATE SEQUENCE pg_temp.tables;
CREATE FUNCTION pg_temp.broken(description text, command text, problem text, mended text[], readable boolean,
    inserts text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    name  text := 't' || nextval('pg_temp.tables');
    error text;
    fill  text := replace(coalesce(problem, ''), '%s', name);
BEGIN
    PERFORM event_store.create_event_table(name);
    PERFORM event_store.append_batch(name::regclass, 'order-1', '{A,B,C}', '{1,2,3}');
    EXECUTE format(command, name);

    error := format(E'SE005\nevent table "%s" is not guarded\n%s\nIts owner can mend most of that: SELECT * FROM event_store.guard(''public.%1$s'');\npublic.%1$s', name, fill);
    RETURN NEXT is(event_store.check_guards(name::regclass), fill, description || ': check_guards() says so');
    RETURN NEXT is(pg_temp.error_of(format('SELECT event_store.append(%L, ''order-1'', ''D'', ''{}'')', name)), error, description || ': append() is refused');
    RETURN NEXT is(pg_temp.error_of(format('SELECT event_store.append_streams(%L, ''[{"stream": "order-1", "events": [{"type": "T", "data": 1}]}]'')', name)), error,
                   description || ': append_streams() is refused');
    IF inserts <> 'unseen' THEN
        RETURN NEXT is(pg_temp.error_of(format('INSERT INTO %s (stream, type, data) VALUES (''order-1'', ''D'', ''{}'')', name)),
                       CASE inserts WHEN 'refused' THEN error ELSE inserts END, description || ': INSERT is refused');
    END IF;
    IF readable THEN
        RETURN NEXT is((SELECT count(*) FROM event_store.read_stream(name::regclass, 'order-1')) || ' ' || (SELECT count(*) FROM event_store.read_all(name::regclass)),
                       '3 0', description || ': streams can be read');
    ELSE
        RETURN NEXT is(pg_temp.error_of(format('SELECT event_store.read_stream(%L, ''order-1'')', name)), error, description || ': it cannot be read either');
    END IF;

    IF mended IS NULL THEN
        RETURN NEXT is(pg_temp.error_of(format('SELECT event_store.guard(%L)', name)),
                       format(E'SE005\ncannot put the guards of "%s" in order\n%s\nThat has to be undone by hand.\npublic.%1$s', name, fill), description || ': guard() cannot mend it');
    ELSE
        RETURN NEXT is((SELECT array_agg(g)::text FROM event_store.guard(name::regclass) g), replace(mended::text, '%s', name), description || ': guard() mends it, and says what');
        RETURN NEXT is(event_store.check_guards(name::regclass), NULL, description || ': then check_guards() is content');
        RETURN NEXT is((SELECT count(*) FROM event_store.guard(name::regclass)), 0::bigint, description || ': and guard() has nothing to do');
        PERFORM event_store.append(name::regclass, 'order-1', 'D', '4', 3);
        EXECUTE format('INSERT INTO %s (stream, type, data, version) VALUES (''order-1'', ''E'', ''5'', 5)', name);
        RETURN NEXT is((SELECT string_agg(position || ':' || version || ':' || data, ' ' ORDER BY version) FROM event_store.read_stream(name::regclass, 'order-1')),
                       '1:1:1 2:2:2 3:3:3 4:4:4 5:5:5', description || ': append and INSERT go on');
        RETURN NEXT is(left(pg_temp.error_of(format('DELETE FROM %s', name)), 5) || left(pg_temp.error_of(format('TRUNCATE %s', name)), 5), 'SE002SE002', description || ': nobody deletes');
    END IF;
EXCEPTION WHEN OTHERS THEN
    RETURN NEXT fail(format('%s: %s %s', description, SQLSTATE, SQLERRM));
END $$;

-- What guard() mends.
SELECT t FROM (VALUES
    ('statement guard disabled', 'ALTER TABLE %s DISABLE TRIGGER event_store_append_only',
     'Guard "event_store_append_only" is disabled.', '{enabled trigger event_store_append_only}'::text[], true, 'refused'),
    ('row guard disabled', 'ALTER TABLE %s DISABLE TRIGGER event_store_append_only_row',
     'Guard "event_store_append_only_row" is disabled.', '{enabled trigger event_store_append_only_row}', true, 'refused'),
    ('insert guard disabled', 'ALTER TABLE %s DISABLE TRIGGER zzz_event_store_append',
     'Guard "zzz_event_store_append" is disabled.', '{enabled trigger zzz_event_store_append}', true, 'unseen'),
    ('all triggers disabled', 'ALTER TABLE %s DISABLE TRIGGER ALL',
     'Guard "event_store_append_only" is disabled.',
         '{enabled trigger event_store_append_only,enabled trigger event_store_append_only_row,enabled trigger zzz_event_store_append}', true,
         'unseen'),
    ('all triggers disabled and enabled', 'ALTER TABLE %1$s DISABLE TRIGGER ALL; ALTER TABLE %1$s ENABLE TRIGGER ALL',
     'Guard "event_store_append_only" is not ENABLE ALWAYS.',
         '{enabled trigger event_store_append_only,enabled trigger event_store_append_only_row}', true, 'refused'),
    ('insert guard only for replicas', 'ALTER TABLE %s ENABLE REPLICA TRIGGER zzz_event_store_append',
     'Guard "zzz_event_store_append" is ENABLE REPLICA, not ENABLE.', '{enabled trigger zzz_event_store_append}', true, 'unseen'),
    ('insert guard for replicas too', 'ALTER TABLE %s ENABLE ALWAYS TRIGGER zzz_event_store_append',
     'Guard "zzz_event_store_append" is ENABLE ALWAYS, not ENABLE.', '{enabled trigger zzz_event_store_append}', true, 'refused'),
    ('statement guard dropped', 'DROP TRIGGER event_store_append_only ON %s',
     'Guard "event_store_append_only" is missing.', '{created trigger event_store_append_only}', true, 'refused'),
    ('row guard dropped', 'DROP TRIGGER event_store_append_only_row ON %s',
     'Guard "event_store_append_only_row" is missing.', '{created trigger event_store_append_only_row}', true, 'refused'),
    ('insert guard dropped', 'DROP TRIGGER zzz_event_store_append ON %s',
     'Guard "zzz_event_store_append" is missing.', '{created trigger zzz_event_store_append}', true, 'unseen'),
    ('guard that fires only for some updates',
        'CREATE OR REPLACE TRIGGER event_store_append_only_row BEFORE UPDATE OF data OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION event_store._guard_change()',
     'Trigger "event_store_append_only_row" is not what the guard "event_store_append_only_row" has to be.',
         '{created trigger event_store_append_only_row}', true, 'refused'),
    ('guard with a condition', 'CREATE OR REPLACE TRIGGER zzz_event_store_append BEFORE INSERT ON %s FOR EACH ROW WHEN (NEW.type <> ''D'') EXECUTE FUNCTION event_store._guard_insert()',
     'Trigger "zzz_event_store_append" is not what the guard "zzz_event_store_append" has to be.', '{created trigger zzz_event_store_append}',
         true, 'unseen'),
    ('guard replaced by a trigger of another function',
        'CREATE OR REPLACE TRIGGER event_store_append_only BEFORE UPDATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION note()',
     'Trigger "event_store_append_only" is not what the guard "event_store_append_only" has to be.',
         '{created trigger event_store_append_only}', true, 'refused'),
    ('sequence with a cache', 'ALTER SEQUENCE %s_position_seq CACHE 50',
     'Its sequence has CACHE 50, not 1.', '{set the properties of sequence public.%s_position_seq}', true, 'refused'),
    ('sequence that cycles', 'ALTER SEQUENCE %s_position_seq CYCLE',
     'Its sequence is CYCLE.', '{set the properties of sequence public.%s_position_seq}', true, 'refused'),
    ('sequence with an increment', 'ALTER SEQUENCE %s_position_seq INCREMENT 10',
     'Its sequence has INCREMENT 10, not 1.', '{set the properties of sequence public.%s_position_seq}', true, 'refused'),
    ('sequence restarted', 'ALTER SEQUENCE %s_position_seq RESTART',
     'Its sequence stands at 0, below the greatest position, 3.', '{set sequence public.%s_position_seq to 3}', true, 'refused'),
    ('sequence unlogged', 'ALTER SEQUENCE %s_position_seq SET UNLOGGED',
     'Its sequence is not permanent.', NULL, true, 'refused'),
    ('sequence dropped', 'DROP SEQUENCE %s_position_seq',
     'Column "position" owns no sequence.', '{created sequence public.%s_position_seq,set sequence public.%s_position_seq to 3}', false,
         'refused'),
    -- What it cannot mend.
    ('trigger behind the guard', 'CREATE TRIGGER zzzz BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION note()',
     'Trigger "zzzz" would fire behind the guard "zzz_event_store_append", which has to be the last.', NULL, true, 'refused'),
    ('rule', 'CREATE RULE r AS ON DELETE TO %s DO INSTEAD NOTHING', 'It has a rule.', NULL, true, 'refused'),
    ('inheritance parent', 'CREATE TABLE %1$s_parent (LIKE %1$s); ALTER TABLE %1$s INHERIT %1$s_parent', 'It inherits from another table.',
        NULL, true, 'refused'),
    ('inheritance child', 'CREATE TABLE %1$s_child () INHERITS (%1$s)', 'Another table inherits from it.', NULL, true, 'refused'),
    ('partition', 'CREATE TABLE %1$s_parted (LIKE %1$s) PARTITION BY LIST (type); ALTER TABLE %1$s_parted ATTACH PARTITION %1$s DEFAULT',
        'It is a partition.', NULL, true, 'refused'),
    ('unlogged table', 'ALTER TABLE %s SET UNLOGGED', 'It is an unlogged table.', NULL, true, 'refused'),
    ('column dropped', 'ALTER TABLE %s DROP COLUMN metadata', 'Column "metadata" is missing.', NULL, false, 'refused'),
    ('column renamed', 'ALTER TABLE %s RENAME COLUMN occurred_at TO happened_at', 'Column "occurred_at" is missing.', NULL, false, 'refused'),
    ('column of another type', 'ALTER TABLE %s ALTER causation_id TYPE varchar(50)',
        'Column "causation_id" has type character varying, not text.', NULL, false, 'refused'),
    ('column of another collation', 'ALTER TABLE %s ALTER stream TYPE text COLLATE "POSIX"', 'Column "stream" does not have the collation "C".',
        NULL, false, 'refused'),
    ('column that may be NULL', 'ALTER TABLE %s ALTER data DROP NOT NULL', 'Column "data" is not NOT NULL.', NULL, false, 'refused'),
    ('default on position', 'ALTER TABLE %s ALTER position SET DEFAULT 1', 'Column "position" has a default or is generated.', NULL, false,
        'refused'),
    ('no unique ids', 'ALTER TABLE %1$s DROP CONSTRAINT %1$s_event_id_key', 'The unique index on (event_id) is missing or not valid.', NULL,
        false, 'refused'),
    ('no unique versions', 'ALTER TABLE %1$s DROP CONSTRAINT %1$s_stream_version_key',
        'The unique index on (stream, version) is missing or not valid.', NULL, false, 'refused'),
    ('no primary key', 'ALTER TABLE %1$s DROP CONSTRAINT %1$s_pkey', 'The unique index on (position) is missing or not valid.', NULL, false,
        'refused'),
    ('no unique versions, but an index', 'ALTER TABLE %1$s DROP CONSTRAINT %1$s_stream_version_key; CREATE INDEX ON %1$s (stream, version)',
     'The unique index on (stream, version) is missing or not valid.', NULL, false, 'refused'),
    ('unique versions of some rows',
        'ALTER TABLE %1$s DROP CONSTRAINT %1$s_stream_version_key; CREATE UNIQUE INDEX ON %1$s (stream, version) WHERE type <> ''D''',
     'The unique index on (stream, version) is missing or not valid.', NULL, false, 'refused'),
    ('unique versions, checked late',
        'ALTER TABLE %1$s DROP CONSTRAINT %1$s_stream_version_key; ALTER TABLE %1$s ADD UNIQUE (stream, version) DEFERRABLE',
     'The unique index on (stream, version) is missing or not valid.', NULL, false, 'refused')
    ) AS c(description, command, problem, mended, readable, inserts),
    pg_temp.broken(description, command, problem, mended, readable, inserts) AS t;

-- The view tells, too, and does not fail for what is broken.
SELECT is((SELECT count(*) FROM event_store.event_tables WHERE NOT guarded AND problem IS DISTINCT FROM event_store.check_guards(event_table)),
    0::bigint,
          'event_tables shows what check_guards() says');
SELECT is((SELECT count(*) FROM event_store.event_tables WHERE NOT guarded), 19::bigint,
    'event_tables lists the tables that are still broken as not guarded');
SELECT is((SELECT count(*) FROM event_store.event_tables WHERE guarded), 18::bigint, 'and the mended ones as guarded');

-- More than one thing at a time, a guard that is where it is not looked for.
SELECT event_store.create_event_table('many') \g /dev/null
SELECT event_store.append_batch('many', 'order-1', '{A,B,C}', '{1,2,3}') \g /dev/null
DROP TRIGGER event_store_append_only ON many;
DROP TRIGGER zzz_event_store_append ON many;
ALTER TABLE many DISABLE TRIGGER event_store_append_only_row;
ALTER SEQUENCE many_position_seq CACHE 5 RESTART;
SELECT set_eq($$ SELECT * FROM event_store.guard('many') $$,
    ARRAY['set the properties of sequence public.many_position_seq', 'set sequence public.many_position_seq to 3',
          'created trigger event_store_append_only', 'enabled trigger event_store_append_only_row', 'created trigger zzz_event_store_append'],
    'guard() mends several things at once, and says each');
SELECT is(event_store.check_guards('many'), NULL, 'then all is in order');

-- A table whose guards are all gone is an event table no more, and is said to be none.
DROP TRIGGER event_store_append_only ON many;
DROP TRIGGER event_store_append_only_row ON many;
DROP TRIGGER zzz_event_store_append ON many;
SELECT throws_ok($$ SELECT event_store.append('many', 'order-1', 'T', '{}') $$, 'SE004', '"many" is not an event table',
    'a table that has lost all guards is an ordinary one');

SELECT event_store.create_event_table('two') \g /dev/null
CREATE SEQUENCE two_second OWNED BY two.position;
SELECT is(event_store.check_guards('two'), 'Column "position" owns more than one sequence.', 'check_guards() finds a second sequence');
SELECT throws_ok($$ SELECT event_store.guard('two') $$, 'SE005', 'cannot put the guards of "two" in order',
    'guard() does not choose between two sequences');

-- Append-only tables.
CREATE TABLE audit (a int);
SELECT event_store.make_append_only('audit') \g /dev/null
ALTER TABLE audit DISABLE TRIGGER event_store_append_only;
SELECT is(event_store.check_guards('audit'), 'Guard "event_store_append_only" is disabled.', 'check_guards() looks at append-only tables too');
SELECT is((SELECT array_agg(g) FROM event_store.guard('audit') g), '{enabled trigger event_store_append_only}', 'guard() mends them');
DROP TRIGGER event_store_append_only_row ON audit;
SELECT is((SELECT array_agg(g) FROM event_store.guard('audit') g), '{created trigger event_store_append_only_row}',
    'also where a guard is missing');
SELECT is(event_store.check_guards('audit'), NULL, 'then all is in order');

-- A sequence that is set back between two appends of one session.
SELECT event_store.create_event_table('back') \g /dev/null
SELECT event_store.append_batch('back', 'order-1', '{A,B,C,D,E}', '{1,2,3,4,5}') \g /dev/null
SELECT setval('back_position_seq', 3) \g /dev/null
SELECT throws_ok($$ SELECT event_store.append('back', 'order-1', 'F', '{}') $$, 'SE005', 'event table "back" is not guarded',
    'a sequence set back after an append of this session is found by append()');
SELECT setval('back_position_seq', 3) \g /dev/null
SELECT throws_ok($$ INSERT INTO back (stream, type, data) VALUES ('order-1', 'F', '{}') $$, 'SE005', 'event table "back" is not guarded',
    'and by INSERT');
SELECT event_store.guard('back') \g /dev/null
SELECT is((event_store.append('back', 'order-1', 'F', '{}')).last_version, 6::bigint, 'after guard() it goes on');
SELECT setval('back_position_seq', 1000) \g /dev/null
SELECT is((event_store.append('back', 'order-1', 'G', '{}')).last_position, 1001::bigint,
    'a sequence that is set forward leaves a gap, no more');
SELECT setval('back_position_seq', 140737488355327) \g /dev/null
SELECT throws_ok($$ SELECT event_store.append('back', 'order-1', 'H', '{}') $$, '2200H', NULL, 'a sequence at its end is an error');

SELECT * FROM finish();
