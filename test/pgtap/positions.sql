-- What appends leave of the sequence, and its limits.
SET client_min_messages = warning;
SELECT plan(16);

CREATE FUNCTION pg_temp.error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    RETURN concat_ws(' ', SQLSTATE, SQLERRM);
END $$;

SELECT event_store.create_event_table('orders') \g /dev/null

-- Positions of a batch of so many events.
CREATE FUNCTION pg_temp.batch(n int, OUT "positions" text) LANGUAGE sql AS $$
    SELECT concat(first_position, '-', last_position) FROM event_store.append_batch('orders', 's-1', array_fill('T'::text, ARRAY[n]), array_fill('1'::jsonb, ARRAY[n]))
$$;
CREATE FUNCTION pg_temp.sequence() RETURNS text LANGUAGE sql AS 'SELECT concat_ws('' '', last_value, log_cnt BETWEEN 0 AND 32, is_called) FROM orders_position_seq';

SELECT is(pg_temp.batch(40), '1-40', 'the first batch gets the first positions');
SELECT is(pg_temp.sequence(), '40 t t', 'the sequence has given them out');
SELECT is(pg_temp.batch(11), '41-51', 'the next one goes on');
SELECT is(pg_temp.sequence(), '51 t t', 'and so has that');
SELECT is(currval('orders_position_seq'), 51::bigint, 'currval() is the last position');
SELECT is(pg_temp.batch(1), '52-52', 'one event');
CHECKPOINT;
SELECT is(pg_temp.batch(3), '53-55', 'after a checkpoint');
SELECT is(pg_temp.sequence(), '55 t t', 'the sequence is logged again, since replay begins there');
SELECT setval('orders_position_seq', 100, false) \g /dev/null
SELECT is(pg_temp.batch(2), '100-101', 'a value that setval() leaves to be given out is given out');
SELECT results_eq('SELECT position, version FROM orders ORDER BY position', 'SELECT CASE WHEN i < 56 THEN i ELSE i + 44 END::bigint, i::bigint FROM generate_series(1, 57) i',
    'the rows have those positions');

-- Limits.
SELECT setval('orders_position_seq', 140737488355327 - 5) \g /dev/null
SELECT is(pg_temp.batch(3), '140737488355323-140737488355325', 'up to the last position');
SELECT is(pg_temp.error_of('SELECT pg_temp.batch(3)'), '2200H nextval: reached maximum value of sequence "orders_position_seq" (140737488355327)', 'not beyond: nextval() says so');
SELECT is((SELECT max(position) FROM orders), 140737488355325, 'nothing of that is written');

-- A trigger that appends between the rows gets positions between theirs.
SELECT event_store.create_event_table('log') \g /dev/null
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_store.append('log', 'audit-1', 'Seen', to_jsonb(new.type));
    RETURN new;
END $$;
CREATE TRIGGER audit BEFORE INSERT ON log FOR EACH ROW WHEN (new.stream <> 'audit-1') EXECUTE FUNCTION audit();
SELECT event_store.append_batch('log', 's-1', '{A,B}', '{1,2}') \g /dev/null
SELECT is((SELECT string_agg(concat_ws(' ', position, stream, version), ', ' ORDER BY position) FROM log),
    '1 s-1 1, 2 audit-1 1, 3 s-1 2, 4 audit-1 2',
    'where a trigger appends between the rows it gets positions between theirs');
DROP TRIGGER audit ON log;
SELECT event_store.append_streams('log', '[{"stream": "a-1", "events": [{"type": "T", "data": 1}, {"type": "T", "data": 1}]}, {"stream": "b-1", "events": [{"type": "T", "data": 1}]}]') \g /dev/null
SELECT is((SELECT string_agg(concat_ws(' ', position, stream, version), ', ' ORDER BY position) FROM log WHERE position > 4),
    '5 a-1 1, 6 a-1 2, 7 b-1 1', 'append_streams() draws for all streams in their order');

-- A batch of which one event is refused leaves a gap.
ALTER TABLE log ADD CHECK (type <> 'Refused');
SELECT is(pg_temp.error_of($$ SELECT event_store.append_batch('log', 's-1', '{A,B,Refused}', '{1,2,3}') $$) || ' ' || (event_store.append('log', 's-1', 'T', '1')).first_position,
    '23514 new row for relation "log" violates check constraint "log_type_check" 11', 'a batch that fails leaves a gap');

SELECT * FROM finish();
