CREATE EXTENSION event_store;
SELECT event_store.create_event_table('ev');

-- Whether an append with that expected version succeeds.
CREATE FUNCTION try_append(name text, version bigint, data jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_store.append('ev', name, 'OrderPlaced', data, expected_version => version);
    RETURN true;
EXCEPTION WHEN SQLSTATE 'SE001' THEN
    RETURN false;
END $$;
CREATE FUNCTION stream_version(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT event_store.stream_version('ev', name) $$;
CREATE VIEW bench_size AS SELECT pg_total_relation_size('ev') AS bytes;
CREATE VIEW bench_events AS SELECT stream, version FROM ev;
