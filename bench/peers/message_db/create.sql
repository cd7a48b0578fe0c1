CREATE FUNCTION try_append(name text, version bigint, data jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM message_store.write_message(gen_random_uuid()::varchar, name, 'OrderPlaced', data, NULL, version - 1);
    RETURN true;
EXCEPTION WHEN raise_exception THEN
    IF SQLERRM NOT LIKE 'Wrong expected version%' THEN
        RAISE;
    END IF;
    RETURN false;
END $$;
CREATE FUNCTION public.stream_version(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(message_store.stream_version(name::varchar), -1) + 1 $$;
CREATE VIEW bench_size AS SELECT pg_total_relation_size('message_store.messages') AS bytes;
CREATE VIEW bench_events AS SELECT stream_name AS stream, position + 1 AS version FROM message_store.messages;
