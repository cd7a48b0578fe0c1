-- To be told of new events, and to see who is: notifications, long polls, the
-- records for standbys, and a view of all feeds.

CREATE FUNCTION event_store.channel(event_table regclass) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'event_store_channel';
COMMENT ON FUNCTION event_store.channel(regclass) IS
'The channel on which an event table notifies its listeners: LISTEN to it. With shared_preload_libraries = ''event_store'' the background worker of the database notifies as soon as events are readable, at most once per event_store.notify_interval; the payload is the newest checkpoint, as text, and what the worker says only ever rises. Without it, and while there is no worker (for a moment after a crash, for example), each transaction that has appended notifies when it commits; the payload is the last position that it has drawn, which need not be readable yet, and PREPARE TRANSACTION and COMMIT PREPARED send none. A notification is a hint: read from your checkpoint, and poll as well. See the setting event_store.notify.';

CREATE FUNCTION event_store.wait_for_events(
    event_table regclass,
    after bigint DEFAULT NULL,
    timeout interval DEFAULT '30 seconds')
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_wait_for_events';
COMMENT ON FUNCTION event_store.wait_for_events(regclass, bigint, interval) IS
'Waits until there are readable events above the position after (NULL: 0) and returns the newest checkpoint; at the time-out it returns it too, and it is not above after then. Time-outs above 60 seconds are taken as 60 seconds, since the calling statement holds its snapshot, and so holds back VACUUM, while it waits. Can be cancelled; works through a connection pooler in any mode. Costs no polling where the library is preloaded; otherwise, and on a standby, it looks 20 times a second. Needs SELECT on the event table; row-level security applies. Raises 25001 where it would wait in a transaction that has appended to the table itself, 22023 for a negative timeout, 0A000 where feeds cannot be read.';

CREATE TABLE event_store.feed_marks (
    event_table     oid PRIMARY KEY,
    mark            bigint NOT NULL,
    recorded_at     timestamptz NOT NULL
) USING heap;
COMMENT ON TABLE event_store.feed_marks IS
'How far standbys may read the feed of each event table. Written by the background worker on the primary, in place, at most once per event_store.standby_interval and only when there are new events. Nothing to dump or replicate: each server writes its own.';

CREATE FUNCTION event_store._skip_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN NULL;
END $$;
COMMENT ON FUNCTION event_store._skip_row() IS
'Trigger function: keeps what a publication FOR ALL TABLES sends away from event_store.feed_marks.';

CREATE TRIGGER skip_row BEFORE INSERT OR UPDATE OR DELETE ON event_store.feed_marks
    FOR EACH ROW EXECUTE FUNCTION event_store._skip_row();
ALTER TABLE event_store.feed_marks ENABLE REPLICA TRIGGER skip_row;
COMMENT ON TRIGGER skip_row ON event_store.feed_marks IS
'Discards what a subscription brings: the marks are those of another server.';

CREATE FUNCTION event_store.feed_status(
    event_table regclass,
    OUT mark bigint,
    OUT checkpoint bigint,
    OUT last_position bigint,
    OUT events_behind bigint,
    OUT seconds_behind double precision,
    OUT notifications bigint,
    OUT last_notified_at timestamptz,
    OUT worker_pid integer)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_feed_status';
COMMENT ON FUNCTION event_store.feed_status(regclass) IS
'How far the feed of one event table can be read, and what its worker does: see the view event_store.feeds. Raises nothing but 22004; the first five are NULL for anything that is not an event table, without SELECT on it, where row-level security applies to the caller, where feeds cannot be read, and while somebody has the table locked.';

CREATE VIEW event_store.feeds AS
SELECT c.oid::pg_catalog.regclass AS event_table,
       s.mark,
       s.checkpoint,
       s.last_position,
       s.events_behind,
       s.seconds_behind,
       h.pid AS held_by,
       h.prepared_transaction AS held_by_prepared,
       h.since AS held_since,
       s.notifications,
       s.last_notified_at,
       s.worker_pid
  FROM pg_catalog.pg_class c
 CROSS JOIN LATERAL event_store.feed_status(c.oid::pg_catalog.regclass) s
  LEFT JOIN (
        SELECT DISTINCT ON (m.event_table) m.*
          FROM event_store.mark_holders m
         ORDER BY m.event_table, m."position") h ON h.event_table = c.oid
 WHERE c.oid IN (SELECT t.tgrelid
                   FROM pg_catalog.pg_trigger t
                  WHERE t.tgfoid = 'event_store._guard_insert()'::pg_catalog.regprocedure);
COMMENT ON VIEW event_store.feeds IS
'The feeds of this database''s event tables: the high-water mark; the newest checkpoint, which is the last event at or below it; the greatest visible position; how many positions (at most so many events) are visible and not readable yet, and for how many seconds the oldest of them has been waiting; which backend or prepared transaction holds back the mark most, and since when; how many notifications the worker has sent since the server started, when the last one; the worker''s pid (NULL: there is none now). See feed_status() for what is NULL when.';
GRANT SELECT ON event_store.feeds TO PUBLIC;
