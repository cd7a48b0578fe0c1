CREATE TABLE events (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    stream text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    event_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    type text COLLATE "C" NOT NULL,
    data jsonb NOT NULL,
    metadata jsonb,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, version)
);
CREATE INDEX ON events (transaction_id, position);

CREATE FUNCTION stream_version(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(max(version), 0) FROM events WHERE stream = name $$;

-- expected NULL is any version.  A conflict is a unique violation.
CREATE FUNCTION append(name text, types text[], data jsonb[], expected bigint DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last bigint := coalesce(expected, stream_version(name));
BEGIN
    INSERT INTO events (stream, version, type, data)
    SELECT name, last + e.n, e.type, e.data FROM unnest(types, append.data) WITH ORDINALITY AS e(type, data, n) ORDER BY e.n;
    RETURN last + cardinality(types);
END $$;
CREATE FUNCTION try_append(name text, version bigint, data jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM append(name, '{OrderPlaced}', ARRAY[data], version);
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END $$;
CREATE VIEW bench_size AS SELECT pg_total_relation_size('events') AS bytes;
CREATE VIEW bench_events AS SELECT stream, version FROM events;
