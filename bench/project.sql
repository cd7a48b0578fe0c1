-- So many :events of 100 bytes in so many :streams, projections over them, and the
-- same by hand.  All projections are paused.
BEGIN;
LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO ev (stream, type, data)
SELECT 'order-' || i::bigint * 7919 % :streams, 'OrderPlaced', jsonb_build_object('amount', i % 100, 'note', repeat('x', 68))
  FROM generate_series(1, :events) i;
COMMIT;
VACUUM (ANALYZE) ev;

CREATE TABLE totals (stream text PRIMARY KEY, count bigint, sum bigint);
CREATE TABLE by_hand (stream text PRIMARY KEY, count bigint, sum bigint);
CREATE TABLE by_function (stream text PRIMARY KEY, count bigint, sum bigint);
CREATE TABLE checkpoint (position bigint);
CREATE TABLE digests (stream text, digest text);

SELECT event_store.create_projection('totals', 'ev', batch_time => '10 s', batch_size => :batch, statement => $$
    INSERT INTO totals AS t SELECT stream, count(*), sum((data->>'amount')::bigint) FROM events GROUP BY stream
        ON CONFLICT (stream) DO UPDATE SET count = t.count + excluded.count, sum = t.sum + excluded.sum $$);
SELECT event_store.pause_projection('totals');

CREATE FUNCTION handle(e event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO by_function AS t VALUES (e.stream, 1, (e.data->>'amount')::bigint)
        ON CONFLICT (stream) DO UPDATE SET count = t.count + 1, sum = t.sum + excluded.sum;
END $$;
SELECT event_store.create_projection('by_function', 'ev', function => 'handle(event_store.event)');
SELECT event_store.pause_projection('by_function');

-- Much to compute, little to write.
CREATE FUNCTION ponder(e event_store.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    digest text := e.stream;
BEGIN
    FOR i IN 1 .. 100 LOOP
        digest := md5(digest);
    END LOOP;
    IF digest LIKE 'fff%' THEN
        INSERT INTO digests VALUES (e.stream, digest);
    END IF;
END $$;
SELECT event_store.create_projection('one', 'ev', function => 'ponder(event_store.event)');
SELECT event_store.pause_projection('one');
SELECT event_store.create_projection('two', 'ev', function => 'ponder(event_store.event)', partitions => 2);
SELECT event_store.pause_projection('two');

-- Keeps the process for the next one.
SELECT event_store.create_projection('keeper', 'ev', 'SELECT FROM events', types => '{None}', start_after => event_store.high_water_mark('ev'));

CREATE PROCEDURE project_by_hand(size bigint) LANGUAGE plpgsql AS $$
DECLARE
    low bigint := 0;
    high bigint;
BEGIN
    LOOP
        SELECT max(position) INTO high FROM (SELECT position FROM ev WHERE position > low ORDER BY position LIMIT size) batch;
        EXIT WHEN high IS NULL;
        INSERT INTO by_hand AS t SELECT stream, count(*), sum((data->>'amount')::bigint) FROM ev
         WHERE position > low AND position <= high GROUP BY stream
            ON CONFLICT (stream) DO UPDATE SET count = t.count + excluded.count, sum = t.sum + excluded.sum;
        UPDATE checkpoint SET position = high;
        COMMIT;
        low := high;
    END LOOP;
END $$;

-- Milliseconds from the commit of an append until the projection has handled it.
CREATE PROCEDURE lags(times int) LANGUAGE plpgsql AS $$
DECLARE
    position bigint;
    since timestamptz;
BEGIN
    FOR i IN 1 .. times LOOP
        SELECT last_position INTO position FROM event_store.append('ev', 'lag-' || i % 10, 'OrderPlaced', '{"amount": 1}');
        COMMIT;
        since := clock_timestamp();
        IF NOT event_store.wait_for_projection('totals', position) THEN
            RAISE EXCEPTION 'the projection has not seen position %', position;
        END IF;
        RAISE NOTICE '%', extract(epoch FROM clock_timestamp() - since) * 1000;
        COMMIT;
    END LOOP;
END $$;
