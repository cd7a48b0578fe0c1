-- Loads of a stream of 1,000 events, against a loop in PL/pgSQL over
-- read_stream() that calls a reducer; both in one session, in turn.  Prints lines
-- "number ours|other round speed"; needs the variable rounds.
SELECT event_store.append_batch('ev', 'order-1', array_agg('Type' || i % 7),
           array_agg(jsonb_build_object('field' || i % 10, i, 'status', 'state ' || i % 5, 'text', md5(i::text))))
  FROM generate_series(1, 1000) i \g /dev/null
VACUUM (ANALYZE) ev;

CREATE FUNCTION in_sql(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE
    AS 'SELECT state || event.data';
CREATE FUNCTION in_plpgsql(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE
    AS 'BEGIN RETURN state || event.data; END';
SELECT event_store.create_aggregate('sql', 'in_sql(jsonb, event_store.event)');
SELECT event_store.create_aggregate('plpgsql', 'in_plpgsql(jsonb, event_store.event)');
SELECT event_store.create_aggregate('merge');
SELECT event_store.save_snapshot('ev', 'order-1', 990, (event_store.load('ev', 'order-1', 'sql', 990)).state, 'sql');

CREATE FUNCTION loop_sql(name text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    e event_store.event;
BEGIN
    FOR e IN SELECT * FROM event_store.read_stream('ev', name) LOOP
        state := in_sql(state, e);
    END LOOP;
    RETURN state;
END $$;
CREATE FUNCTION loop_plpgsql(name text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    e event_store.event;
BEGIN
    FOR e IN SELECT * FROM event_store.read_stream('ev', name) LOOP
        state := in_plpgsql(state, e);
    END LOOP;
    RETURN state;
END $$;

-- How often a second a query runs.
CREATE FUNCTION speed(query text, times int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1 .. times LOOP
        EXECUTE query;
    END LOOP;
    RETURN times / extract(epoch FROM clock_timestamp() - started);
END $$;
CREATE FUNCTION race(ours text, other text, rounds int) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. rounds LOOP
        RETURN NEXT format(E'ours %s %s\nother %s %s', i, speed(ours, 20), i, speed(other, 20));
    END LOOP;
END $$;

SELECT regexp_replace(figures, '^', n || ' ', 'gn')
  FROM (VALUES (1, $$SELECT event_store.load('ev', 'order-1', 'sql', use_snapshot => false)$$, $$SELECT loop_sql('order-1')$$),
               (2, $$SELECT event_store.load('ev', 'order-1', 'plpgsql')$$, $$SELECT loop_plpgsql('order-1')$$),
               (3, $$SELECT event_store.load('ev', 'order-1', 'merge')$$, $$SELECT loop_sql('order-1')$$),
               (4, $$SELECT event_store.load('ev', 'order-1', 'merge')$$, $$SELECT loop_plpgsql('order-1')$$),
               (5, $$SELECT event_store.load('ev', 'order-1', 'sql')$$, $$SELECT event_store.load('ev', 'order-1', 'sql', use_snapshot => false)$$)) AS w(n, ours, other)
 CROSS JOIN LATERAL race(ours, other, :rounds) AS figures
 ORDER BY n;
