CREATE EXTENSION pgq;
SELECT pgq.create_queue('bench');
SELECT pgq.set_queue_config('bench', 'ticker_max_count', '1000');
SELECT pgq.set_queue_config('bench', 'ticker_max_lag', '0');

-- The next batch of a consumer, whom it registers: the former one is done.
CREATE TABLE consumers (name text PRIMARY KEY, batch bigint);
CREATE FUNCTION next_events(consumer text) RETURNS TABLE (ev_id bigint, ev_time timestamptz, ev_txid bigint, ev_retry int, ev_type text, ev_data text, ev_extra1 text, ev_extra2 text, ev_extra3 text, ev_extra4 text) LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
    next bigint;
BEGIN
    SELECT batch INTO done FROM consumers WHERE name = consumer;
    IF NOT FOUND THEN
        INSERT INTO consumers VALUES (consumer);
        PERFORM pgq.register_consumer_at('bench', consumer, 1);
    ELSIF done IS NOT NULL THEN
        PERFORM pgq.finish_batch(done);
    END IF;
    next := pgq.next_batch('bench', consumer);
    UPDATE consumers SET batch = next WHERE name = consumer AND batch IS DISTINCT FROM next;
    IF next IS NOT NULL THEN
        RETURN QUERY SELECT * FROM pgq.get_batch_events(next);
    END IF;
END $$;
CREATE FUNCTION events() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE 'SELECT ev_extra1 FROM ' || (SELECT queue_data_pfx FROM pgq.queue);
END $$;
CREATE VIEW bench_size AS SELECT sum(pg_total_relation_size(oid)) AS bytes FROM pg_class WHERE relkind = 'r' AND relname LIKE 'event\_1%' AND relnamespace = 'pgq'::regnamespace;
CREATE VIEW bench_events AS SELECT stream, NULL::bigint AS version FROM events() stream;
