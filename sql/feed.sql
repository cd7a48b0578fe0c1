-- Feeds: the events of a table in the order of their positions, up to the
-- high-water mark.  VOLATILE and PARALLEL UNSAFE, and in C: they must read the
-- mark first and take a snapshot of their own after it.

CREATE FUNCTION event_store.high_water_mark(event_table regclass) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_high_water_mark';
COMMENT ON FUNCTION event_store.high_water_mark(regclass) IS
'A position up to which nothing can still appear. It may be lower than one seen before, and it may cover positions that no event has: it is no checkpoint, and WHERE position <= high_water_mark(...) in the same statement loses events, since the statement''s snapshot is older. Use the feeds. Needs SELECT on the event table; raises 0A000 on a table that a logical subscription feeds, and on a standby whose primary does not record how far it may read.';

CREATE FUNCTION event_store.read_all(
    event_table regclass,
    after bigint DEFAULT NULL,
    max_count bigint DEFAULT 1000,
    before bigint DEFAULT NULL,
    direction text DEFAULT 'forward',
    types text[] DEFAULT NULL,
    categories text[] DEFAULT NULL,
    streams text[] DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    after_event_id uuid DEFAULT NULL,
    raw boolean DEFAULT false)
    RETURNS SETOF event_store.event
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
    AS 'MODULE_PATHNAME', 'event_store_read_all';
COMMENT ON FUNCTION event_store.read_all(regclass, bigint, bigint, bigint, text, text[], text[], text[], text, uuid, boolean) IS
'The feed of an event table: its events in the order of their positions, up to the high-water mark; never the transaction''s own uncommitted ones. after and before are exclusive positions; direction backward reads from before (NULL: from the mark) down. max_count NULL means 1000. types, categories, streams, correlation_id: only events that match all that are given. The last row''s position is a checkpoint where no filter is given; with a filter use read_batch(). after_event_id: the id of the event at or last before after; raises SE009 checkpoint_diverged where that is another event, as after a point-in-time recovery. Events are upcast to the newest schema version, as register_upcaster() says, unless raw; raises SE008 where that fails. Needs SELECT on the event table; row-level security applies. Raises 0A000 on a table that a logical subscription feeds, and on a standby whose primary does not record how far it may read.';

CREATE FUNCTION event_store.read_category(
    event_table regclass,
    category text,
    after bigint DEFAULT NULL,
    max_count bigint DEFAULT 1000,
    before bigint DEFAULT NULL,
    direction text DEFAULT 'forward',
    types text[] DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    after_event_id uuid DEFAULT NULL,
    raw boolean DEFAULT false)
    RETURNS SETOF event_store.event
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
    AS 'MODULE_PATHNAME', 'event_store_read_category';
COMMENT ON FUNCTION event_store.read_category(regclass, text, bigint, bigint, bigint, text, text[], text, uuid, boolean) IS
'The feed of one category, by its index: as read_all() with categories => ARRAY[category].';

CREATE FUNCTION event_store.read_batch(
    event_table regclass,
    after bigint DEFAULT NULL,
    max_count bigint DEFAULT 1000,
    types text[] DEFAULT NULL,
    categories text[] DEFAULT NULL,
    streams text[] DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    after_event_id uuid DEFAULT NULL,
    raw boolean DEFAULT false,
    OUT checkpoint bigint,
    OUT checkpoint_event_id uuid,
    OUT events jsonb)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_read_batch';
COMMENT ON FUNCTION event_store.read_batch(regclass, bigint, bigint, text[], text[], text[], text, uuid, boolean) IS
'One batch of the feed and the checkpoint to save with it, always as one row: events is a JSON array (empty where nothing matched), checkpoint the position up to which the caller has now seen everything and checkpoint_event_id that event''s id, to be passed as after and after_event_id next time. The checkpoint moves on also where the filter lets nothing through; a call looks at no more than 100,000 events and returns about 16 MB of data at most, so an empty batch whose checkpoint has moved is not the end. Arguments and errors as for read_all().';

CREATE FUNCTION event_store.position_at(
    event_table regclass,
    at timestamptz)
    RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    width    interval := '1 minute';
    oldest   timestamptz;
    low      timestamptz;
    found_at bigint;
BEGIN
    PERFORM event_store.channel(event_table);   -- is it an event table?
    IF at IS NULL THEN
        RAISE EXCEPTION 'at must not be null' USING ERRCODE = '22004';
    END IF;
    EXECUTE format('SELECT recorded_at FROM ONLY %s ORDER BY position LIMIT 1',
                   event_table) INTO oldest;
    IF oldest IS NULL THEN
        RETURN 0;
    END IF;
    -- recorded_at is near to monotonic, so the answer lies in the youngest
    -- window that holds any event.  max(position + 0) keeps the planner from
    -- walking the primary key down from the end.
    LOOP
        low := CASE WHEN NOT isfinite(at) OR width > interval '100 years' THEN '-infinity'
                    WHEN at - oldest < width THEN '-infinity'
                    ELSE at - width END;
        EXECUTE format('SELECT max(position + 0) FROM ONLY %s
                         WHERE recorded_at <= $1 AND recorded_at >= $2', event_table)
           INTO found_at USING at, low;
        EXIT WHEN found_at IS NOT NULL OR low = '-infinity';
        width := width * 10;
    END LOOP;
    RETURN coalesce(found_at, 0);
END $$;
COMMENT ON FUNCTION event_store.position_at(regclass, timestamptz) IS
'The greatest position of the events recorded at or before a time; 0 where there is none. By the BRIN index on recorded_at. recorded_at is near to monotonic in position, no more: near that time a feed that starts here may repeat or miss events that were being recorded at that very moment. Needs SELECT on the event table; row-level security applies.';

CREATE VIEW event_store.mark_holders AS
SELECT l.classid::pg_catalog.regclass AS event_table,
       l.objid::pg_catalog.int8 + (l.objsubid::pg_catalog.int8 << 32) AS "position",
       l.pid,
       p.gid AS prepared_transaction,
       coalesce(a.xact_start, p.prepared) AS since,
       coalesce(a.usename, p.owner) AS "user",
       a.application_name,
       a.state
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN LATERAL (
        -- A prepared transaction is known by the lock on its own id.
        SELECT p.*
          FROM pg_catalog.pg_locks x
          JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
         WHERE l.pid IS NULL AND x.pid IS NULL
           AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock'
           AND x.virtualtransaction = l.virtualtransaction) p ON true
 WHERE l.locktype = 'userlock'
   AND l.objsubid <> -1
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                      WHERE d.datname = pg_catalog.current_database());
COMMENT ON VIEW event_store.mark_holders IS
'Who is appending right now and so holds back the high-water mark: a row per event table and transaction. The mark of a table is at most the least position here. A backend has a pid, a prepared transaction its name; since is the transaction''s start, or the time of PREPARE TRANSACTION. What pg_stat_activity hides from the caller is hidden here.';
GRANT SELECT ON event_store.mark_holders TO PUBLIC;
