-- The columns and indexes of an event table, as one would write it.  Not
-- clock_timestamp(): that is volatile and would slow down COPY.
CREATE EXTENSION event_store;
SELECT event_store.create_event_table('ev');
CREATE SEQUENCE plain_position;
CREATE TABLE plain (LIKE ev INCLUDING ALL);
ALTER TABLE plain
    ALTER position SET DEFAULT nextval('plain_position'),
    ALTER recorded_at SET DEFAULT now();
DROP TABLE ev;

CREATE FUNCTION try_append(name text, version bigint, data jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO plain (stream, version, event_id, type, data) VALUES (name, version + 1, gen_random_uuid(), 'OrderPlaced', data);
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END $$;
CREATE FUNCTION stream_version(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(max(version), 0) FROM plain WHERE stream = name $$;
CREATE VIEW bench_size AS SELECT pg_total_relation_size('plain') AS bytes;
CREATE VIEW bench_events AS SELECT stream, version FROM plain;
