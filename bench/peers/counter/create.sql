CREATE TABLE events (
    position bigint PRIMARY KEY,
    stream text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    event_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    type text COLLATE "C" NOT NULL,
    data jsonb NOT NULL,
    metadata jsonb,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, version)
);

CREATE TABLE counter (position bigint NOT NULL);
INSERT INTO counter VALUES (0);

CREATE FUNCTION stream_version(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(max(version), 0) FROM events WHERE stream = name $$;

-- expected NULL is any version.  A conflict is a unique violation.  Whoever waits
-- for the counter looks for the version when it is his.
CREATE FUNCTION append(name text, types text[], data jsonb[], expected bigint DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    counted bigint;
    last bigint;
BEGIN
    UPDATE counter SET position = position + cardinality(types) RETURNING position - cardinality(types) INTO counted;
    last := coalesce(expected, stream_version(name));
    INSERT INTO events (position, stream, version, type, data)
    SELECT counted + e.n, name, last + e.n, e.type, e.data FROM unnest(types, append.data) WITH ORDINALITY AS e(type, data, n) ORDER BY e.n;
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
