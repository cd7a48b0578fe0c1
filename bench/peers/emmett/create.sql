-- What its client does for one event; NULL is any version.
CREATE FUNCTION append_one(name text, version bigint, data jsonb) RETURNS boolean LANGUAGE sql AS $$
    SELECT success FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY[data], '{"{}"}', '{1}', '{OrderPlaced}', '{E}', name, 'order', version, 'emt:default')
$$;
CREATE FUNCTION try_append(name text, version bigint, data jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN append_one(name, version, data);
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END $$;
CREATE FUNCTION stream_version(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(max(stream_position), 0) FROM emt_streams WHERE stream_id = name AND partition = 'emt:default' AND NOT is_archived $$;
CREATE VIEW bench_size AS
    SELECT sum(pg_total_relation_size(relid)) AS bytes FROM (SELECT relid FROM pg_partition_tree('emt_messages') UNION ALL SELECT relid FROM pg_partition_tree('emt_streams')) t;
CREATE VIEW bench_events AS SELECT stream_id AS stream, stream_position AS version FROM emt_messages;
