-- A plain INSERT, COPY or MERGE into an event table is an append: the insert
-- guard assigns version, position and recorded_at, and applies the rules.
SET client_min_messages = warning;
SELECT plan(60);

SELECT event_store.create_event_table('orders') \g /dev/null

CREATE FUNCTION pg_temp.rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) q', query) INTO result;
    RETURN result;
END $$;
CREATE FUNCTION pg_temp.stored(name text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(version || ':' || (data #>> '{}'), ' ' ORDER BY position) FROM orders WHERE stream = name $$;
CREATE FUNCTION pg_temp.error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text; s text; t text; c text; k text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
        s = SCHEMA_NAME, t = TABLE_NAME, c = COLUMN_NAME, k = CONSTRAINT_NAME;
    RETURN concat_ws(E'\n', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''),
                     nullif(concat_ws('.', nullif(s, ''), nullif(t, ''), nullif(c, ''), nullif(k, '')), ''));
END $$;

-- INSERT.
INSERT INTO orders (stream, type, data) VALUES ('one-1', 'T', '"a"');
SELECT is(pg_temp.rows_of($$ SELECT position, stream, version, type, schema_version, data, metadata, correlation_id, causation_id, occurred_at,
                             get_byte(uuid_send(event_id), 6) >> 4, recorded_at BETWEEN now() - interval '1 hour' AND clock_timestamp() FROM orders $$),
          '(1,one-1,1,T,1,"""a""",,,,,7,t)', 'a row gets position, version, an id of UUID version 7, and recorded_at');
INSERT INTO orders (stream, type, data) VALUES ('one-1', 'T', '"b"'), ('two-1', 'T', '"a"'), ('one-1', 'T', '"c"'), ('two-1', 'T', '"b"');
SELECT is(pg_temp.stored('one-1'), '1:a 2:b 3:c', 'several rows of one stream in one INSERT are numbered on');
SELECT is(pg_temp.stored('two-1'), '1:a 2:b', 'those of another stream between them too');
INSERT INTO orders (stream, type, data) SELECT 'series-' || i % 3, 'T', to_jsonb(i) FROM generate_series(0, 8) AS i;
SELECT is(pg_temp.stored('series-' || i), c.rows, 'INSERT ... SELECT, stream ' || i)
  FROM (VALUES (0, '1:0 2:3 3:6'), (1, '1:1 2:4 3:7'), (2, '1:2 2:5 3:8')) AS c(i, rows);
CREATE TEMP TABLE returned AS SELECT * FROM orders LIMIT 0;
WITH new AS (INSERT INTO orders (stream, type, data) VALUES ('ret-1', 'T', '"a"'), ('ret-1', 'T', '"b"') RETURNING *)
INSERT INTO returned SELECT * FROM new;
SELECT set_eq('SELECT * FROM returned', $$ SELECT * FROM orders WHERE stream = 'ret-1' $$, 'RETURNING shows the row as it is stored');
SELECT is((SELECT count(*) FROM returned WHERE position IS NOT NULL AND version IS NOT NULL AND event_id IS NOT NULL), 2::bigint,
          'with position, version and id');
INSERT INTO orders (stream, type, data, event_id, metadata, correlation_id, causation_id, occurred_at, schema_version)
    VALUES ('all-1', 'T', '{}', '00000000-0000-0000-0000-0000000000a1', '{"m": 1}', 'c1', 'c2', '2001-02-03 04:05:06+00', 3);
SELECT is(pg_temp.rows_of($$ SELECT event_id, metadata, correlation_id, causation_id, occurred_at AT TIME ZONE 'UTC', schema_version FROM orders WHERE stream = 'all-1' $$),
          '(00000000-0000-0000-0000-0000000000a1,"{""m"": 1}",c1,c2,"2001-02-03 04:05:06",3)', 'what the writer gives is stored');
INSERT INTO orders (stream, type, data, recorded_at) VALUES ('time-1', 'T', '{}', '1999-01-01'), ('time-1', 'T', '{}', 'infinity');
SELECT is((SELECT bool_and(recorded_at BETWEEN now() - interval '1 hour' AND clock_timestamp()) FROM orders WHERE stream = 'time-1'), true,
          'recorded_at is never the writer''s');
INSERT INTO orders (stream, type, data, position, version, event_id, recorded_at) VALUES ('null-1', 'T', '{}', NULL, NULL, NULL, NULL);
SELECT is(event_store.stream_version('orders', 'null-1'), 1::bigint, 'NULL for position, version, event_id and recorded_at is as not given');
INSERT INTO orders VALUES (DEFAULT, 'default-1', DEFAULT, DEFAULT, 'T', DEFAULT, '{}');
SELECT is(event_store.stream_version('orders', 'default-1'), 1::bigint, 'DEFAULT for them is as not given');

-- Rules.
INSERT INTO orders (stream, type, data, version) VALUES ('given-1', 'T', '"a"', 1), ('given-1', 'T', '"b"', 2);
SELECT is(pg_temp.stored('given-1'), '1:a 2:b', 'a version may be given, where it is the next');
SELECT is(pg_temp.error_of(format($$ INSERT INTO orders (stream, type, data, version) VALUES %s $$, rows)),
          CASE WHEN actual IS NULL THEN format(E'22023\nversion must be at least 1, not %s', expected)
               ELSE format(E'SE001\nstream "%s" is at version %s, not at the expected %s\nStream "%1$s" is at version %2$s, expected %3$s.\n'
                           'Read the stream again, decide anew, and append with its present version.\npublic.orders', stream, actual,
                               expected) END,
          description)
  FROM (VALUES ($$ ('given-1', 'T', '{}', 2) $$, 'given-1', 2, 1, 'the present version again is SE001'),
               ($$ ('given-1', 'T', '{}', 1) $$, 'given-1', 2, 0, 'version 1 of a stream that exists is SE001'),
               ($$ ('given-1', 'T', '{}', 4) $$, 'given-1', 2, 3, 'a version that leaves a hole is SE001'),
               ($$ ('given-9', 'T', '{}', 2) $$, 'given-9', 0, 1, 'version 2 of a stream that does not exist is SE001'),
               ($$ ('given-9', 'T', '{}', 1), ('given-9', 'T', '{}', 3) $$, 'given-9', 1, 2, 'the rows before it in the command count'),
               ($$ ('given-9', 'T', '{}', 0) $$, NULL, NULL, 0, 'version 0 is not one'),
               ($$ ('given-9', 'T', '{}', -5) $$, NULL, NULL, -5, 'nor is a negative number')) AS c(rows, stream, actual, expected, description);
SELECT is(pg_temp.error_of($$ INSERT INTO orders (stream, type, data, position) VALUES ('p-1', 'T', '{}', 1000000) $$),
          E'428C9\nposition must not be given: 1000000\nThe positions of event table "orders" are drawn when events are appended.\n'
          'To restore data into an event table that is there already, as with pg_restore --data-only, run the restore with '
          'session_replication_role = replica, for example in PGOPTIONS.\npublic.orders.position',
          'a position must not be given; the hint tells how to restore');
SELECT throws_ok($$ INSERT INTO orders (stream, type, data, event_id) VALUES ('given-1', 'T', '{}', '00000000-0000-0000-0000-0000000000a1') $$,
                 '23505', NULL, 'an event_id that is taken is a unique violation');
SELECT throws_ok($$ INSERT INTO orders (stream, type, data, event_id) VALUES ('given-1', 'T', '{}', '00000000-0000-0000-0000-0000000000a2'),
                                                                             ('given-1', 'T', '{}', '00000000-0000-0000-0000-0000000000a2') $$,
                 '23505', NULL, 'so is one that is given twice in one command');
SELECT is(pg_temp.stored('given-1'), '1:a 2:b', 'none of these has left a row');

-- ON CONFLICT.
CREATE TEMP TABLE import (stream text, version bigint, event_id uuid, type text, data jsonb);
INSERT INTO import SELECT 'imp-' || i % 2, i / 2 + 1, ('00000000-0000-0000-0001-' || lpad(i::text, 12, '0'))::uuid, 'T', to_jsonb(i)
    FROM generate_series(0, 9) AS i;
INSERT INTO orders (stream, event_id, type, data) SELECT stream, event_id, type, data FROM import WHERE data::int < 6 ON CONFLICT DO NOTHING;
SELECT is(pg_temp.stored('imp-0') || ', ' || pg_temp.stored('imp-1'), '1:0 2:2 3:4, 1:1 2:3 3:5', 'ON CONFLICT DO NOTHING imports');
INSERT INTO orders (stream, event_id, type, data) SELECT stream, event_id, type, data FROM import ON CONFLICT DO NOTHING;
SELECT is(pg_temp.stored('imp-0') || ', ' || pg_temp.stored('imp-1'), '1:0 2:2 3:4 4:6 5:8, 1:1 2:3 3:5 4:7 5:9',
          'the import again adds what is new, without a hole in the versions');
INSERT INTO orders (stream, event_id, type, data) SELECT stream, event_id, type, data FROM import ON CONFLICT (event_id) DO NOTHING;
INSERT INTO orders (stream, version, event_id, type, data) SELECT stream, version, event_id, type, data
    FROM import ON CONFLICT (event_id) DO NOTHING;
INSERT INTO orders (stream, version, event_id, type, data) SELECT stream, version, event_id, type, data FROM import ON CONFLICT DO NOTHING;
SELECT is((SELECT count(*) FROM orders WHERE stream LIKE 'imp-%'), 10::bigint, 'once more, by event_id, and with versions: nothing');
INSERT INTO import VALUES ('imp-0', 6, '00000000-0000-0000-0001-000000000010', 'T', '10');
INSERT INTO orders (stream, version, event_id, type, data) SELECT stream, version, event_id, type, data
    FROM import ON CONFLICT (event_id) DO NOTHING;
SELECT is(pg_temp.stored('imp-0'), '1:0 2:2 3:4 4:6 5:8 6:10', 'an import with versions goes on where it ended');
INSERT INTO orders (stream, event_id, type, data) VALUES
    ('imp-2', '00000000-0000-0000-0002-000000000001', 'T', '1'), ('imp-2', '00000000-0000-0000-0002-000000000001', 'T', '2'),
    ('imp-2', '00000000-0000-0000-0002-000000000003', 'T', '3') ON CONFLICT DO NOTHING;
SELECT is(pg_temp.stored('imp-2'), '1:1 2:3', 'an id twice in one command: the first row wins, and there is no hole');
SELECT throws_ok($$ INSERT INTO orders (stream, version, event_id, type, data) VALUES ('imp-0', 3, gen_random_uuid(), 'T', '1') ON CONFLICT DO NOTHING $$,
                 'SE001', NULL, 'ON CONFLICT DO NOTHING does not make a loser of a version race look like a success');
SELECT throws_ok($$ INSERT INTO orders (stream, type, data) VALUES ('imp-0', 'T', '1') ON CONFLICT $$ || target || $$ DO UPDATE SET data = EXCLUDED.data $$,
                 'SE002', 'cannot UPDATE "orders": it is append-only',
                     'ON CONFLICT ' || target || ' DO UPDATE is refused, also where nothing conflicts')
  FROM (VALUES ('(event_id)'), ('(position)'), ('(stream, version)'), ('ON CONSTRAINT orders_pkey')) AS c(target);

-- COPY.
COPY orders (stream, type, data) FROM STDIN;
copy-1	T	"a"
copy-2	T	"b"
copy-1	T	"c"
copy-1	T	"d"
\.
SELECT is(pg_temp.stored('copy-1') || ', ' || pg_temp.stored('copy-2'), '1:a 2:c 3:d, 1:b', 'COPY with several rows of one stream');
COPY orders (stream, version, event_id, type, data) FROM STDIN (FORMAT csv, NULL 'none');
copy-1,4,none,T,7
copy-1,none,00000000-0000-0000-0003-000000000001,T,8
\.
SELECT is(pg_temp.stored('copy-1'), '1:a 2:c 3:d 4:7 5:8', 'COPY with a right version, and with an id');
\copy orders (stream, type, data) FROM PROGRAM 'printf "copy-3\tT\t1\ncopy-3\tT\t2\n"'
SELECT is(pg_temp.stored('copy-3'), '1:1 2:2', 'COPY by psql''s \copy');
SELECT throws_ok(format($$ COPY orders (%s) FROM PROGRAM %L $$, columns, format('printf "%s"', rows)), state, message, 'COPY: ' || description)
  FROM (VALUES ('stream,type,data,version', 'copy-1\tT\t1\t6\ncopy-1\tT\t1\t6\n', 'SE001',
      'stream "copy-1" is at version 6, not at the expected 5', 'a wrong version'),
               ('stream,type,data,position', 'copy-1\tT\t1\t99999\n', '428C9', 'position must not be given: 99999', 'a position'),
               ('stream,type,data', 'copy-1\tT\t1\n\tT\t1\n', '22023', 'stream must not be empty', 'an empty stream'),
               ('stream,type,data', 'copy-1\tT\t1\n\\N\tT\t1\n', '22004', 'stream must not be null', 'a stream that is NULL'),
               ('stream,type,data,event_id', 'copy-4\tT\t1\t00000000-0000-0000-0003-000000000001\n', '23505', NULL,
                   'an id that is taken')) AS c(columns, rows, state, message, description);
SELECT is(pg_temp.stored('copy-1'), '1:a 2:c 3:d 4:7 5:8', 'a COPY that fails leaves nothing');
BEGIN;
COPY orders (stream, type, data) FROM STDIN (FREEZE false);
copy-5	T	1
\.
SELECT event_store.append('orders', 'copy-5', 'T', '2', 1) \g /dev/null
COPY orders (stream, type, data) FROM STDIN;
copy-5	T	3
\.
COMMIT;
SELECT is(pg_temp.stored('copy-5'), '1:1 2:2 3:3', 'COPY and append() go on from each other in a transaction');

-- MERGE that inserts.
MERGE INTO orders USING import i ON orders.event_id = i.event_id WHEN NOT MATCHED THEN INSERT (stream, type, data, event_id) VALUES ('merge-1',
    i.type, i.data, i.event_id);
SELECT is(pg_temp.stored('merge-1'), NULL, 'a MERGE whose rows are all there inserts none');
MERGE INTO orders USING (VALUES (1), (2), (3)) AS i(n) ON orders.stream = 'merge-1' WHEN NOT MATCHED THEN INSERT (stream, type,
    data) VALUES ('merge-1', 'T', to_jsonb(n));
SELECT is(pg_temp.stored('merge-1'), '1:1 2:2 3:3', 'a MERGE that only inserts is an append');

-- Through a view of another role.
CREATE ROLE es_insert_owner;
CREATE ROLE es_insert_user;
CREATE VIEW door AS SELECT stream, type, data, version FROM orders WHERE stream LIKE 'door-%' WITH CHECK OPTION;
ALTER VIEW door OWNER TO es_insert_owner;
GRANT SELECT, INSERT ON orders TO es_insert_owner;
GRANT INSERT, SELECT ON door TO es_insert_user;
SET ROLE es_insert_user;
INSERT INTO door (stream, type, data) VALUES ('door-1', 'T', '1'), ('door-1', 'T', '2');
SELECT throws_ok($$ INSERT INTO orders (stream, type, data) VALUES ('door-1', 'T', '3') $$, '42501', NULL,
    'a role without INSERT may not insert into the table');
SELECT throws_ok($$ INSERT INTO door (stream, type, data) VALUES ('other-1', 'T', '1') $$, '44000', NULL, 'the view''s CHECK OPTION holds');
SELECT throws_ok($$ INSERT INTO door (stream, type, data, version) VALUES ('door-1', 'T', '3', 9) $$, 'SE001', NULL,
    'the guard holds behind a view');
SELECT throws_ok($$ UPDATE door SET data = '9' $$, '42501', NULL, 'the view gives no right to UPDATE');
RESET ROLE;
GRANT UPDATE ON orders TO es_insert_owner;
GRANT UPDATE ON door TO es_insert_user;
SET ROLE es_insert_user;
SELECT throws_ok($$ UPDATE door SET data = '9' $$, 'SE002', 'cannot UPDATE "orders": it is append-only',
    'where it does, the event table refuses it');
RESET ROLE;
SELECT is(pg_temp.stored('door-1'), '1:1 2:2', 'rows that come through a view are versioned');

-- Columns that the user has added.
ALTER TABLE orders ADD COLUMN tag text DEFAULT 'none', ADD COLUMN size int GENERATED ALWAYS AS (length(data::text)) STORED,
    ADD COLUMN row_no int GENERATED ALWAYS AS IDENTITY;
INSERT INTO orders (stream, type, data, tag) VALUES ('extra-1', 'T', '"abc"', DEFAULT), ('extra-1', 'T', '"abcdef"', 'mine');
COPY orders (stream, type, data) FROM STDIN;
extra-1	T	"a"
\.
SELECT is(pg_temp.rows_of($$ SELECT version, tag, size, row_no - min(row_no) OVER () FROM orders WHERE stream = 'extra-1' ORDER BY version $$),
          '(1,none,5,0) (2,mine,8,1) (3,none,3,2)', 'defaults, generated columns and identities of added columns are filled');

-- Sub-transactions.
DO $$
BEGIN
    INSERT INTO orders (stream, type, data) VALUES ('part-1', 'T', '1');
    BEGIN
        INSERT INTO orders (stream, type, data) VALUES ('part-1', 'T', '2'), ('part-1', 'T', NULL);
    EXCEPTION WHEN not_null_violation THEN
        NULL;
    END;
    INSERT INTO orders (stream, type, data) VALUES ('part-1', 'T', '3');
END $$;
SELECT is(pg_temp.stored('part-1'), '1:1 2:3', 'a rolled-back INSERT leaves no hole in the versions');
SELECT is_empty('SELECT stream FROM orders GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1',
    'no stream has a hole in its versions');

-- What a restore or a replication worker brings stays as it is.
SELECT event_store.create_event_table('restored') \g /dev/null
SET session_replication_role = replica;
INSERT INTO restored SELECT position, stream, version, event_id, type, schema_version, data, metadata, correlation_id, causation_id,
    occurred_at, recorded_at FROM orders;
RESET session_replication_role;
SELECT set_eq('SELECT * FROM restored',
              'SELECT position, stream, version, event_id, type, schema_version, data, metadata, correlation_id, causation_id, occurred_at, recorded_at FROM orders',
              'with session_replication_role = replica rows stay as they are');
SELECT is(event_store.check_guards('restored'), format('Its sequence stands at 0, below the greatest position, %s.', (SELECT max(position)
    FROM orders)),
          'check_guards() then tells of the sequence that was left behind');
SELECT throws_ok($$ INSERT INTO restored (stream, type, data) VALUES ('one-1', 'T', '1') $$, 'SE005', NULL,
    'an INSERT is refused until that is mended');
SELECT is((SELECT array_agg(g) FROM event_store.guard('restored') g), ARRAY['set sequence public.restored_position_seq to ' || max(position)],
          'guard() sets the sequence, and says so') FROM orders;
INSERT INTO restored (stream, type, data) VALUES ('one-1', 'T', '1');
SELECT is((SELECT array_agg(version) FROM event_store.last_event('restored', 'one-1')), '{4}', 'then the stream goes on');

DROP VIEW door;
REVOKE ALL ON orders FROM es_insert_owner;
DROP ROLE es_insert_owner, es_insert_user;
SELECT * FROM finish();
