-- A tick for each 1,000 events, so that batches are of that size.
SELECT set_config('bench.prefix', :'prefix', false), set_config('bench.streams', :'streams', false), set_config('bench.events', :'events', false), set_config('bench.data', :'data', false);
DO $$
BEGIN
    FOR i IN 0 .. current_setting('bench.events')::int / 1000 - 1 LOOP
        PERFORM pgq.insert_event('bench', 'OrderPlaced', current_setting('bench.data'), current_setting('bench.prefix') || '-' || (i * 1000 + k) % current_setting('bench.streams')::int, NULL, NULL, NULL)
           FROM generate_series(0, 999) k;
        COMMIT;
        PERFORM pgq.ticker('bench');
        COMMIT;
    END LOOP;
END $$;
