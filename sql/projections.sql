-- Projections: read models that the database keeps up to date from the feed.

CREATE TABLE event_store.registered_projections (
    name            text COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 255),
    owner           regrole NOT NULL,
    event_table     regclass NOT NULL,
    statement       text,
    function        text,
    types           text[] CHECK (array_ndims(types) = 1 AND array_position(types, NULL) IS NULL),
    categories      text[] CHECK (array_ndims(categories) = 1 AND array_position(categories, NULL) IS NULL),
    mode            text NOT NULL CHECK (mode IN ('async', 'inline', 'manual')),
    partitions      integer NOT NULL CHECK (partitions BETWEEN 1 AND 256),
    search_path     text NOT NULL CHECK (search_path <> ''),
    tables          regclass[] CHECK (array_ndims(tables) = 1 AND array_position(tables, NULL) IS NULL),
    on_error        text NOT NULL CHECK (on_error IN ('stop', 'park', 'park_stream')),
    max_attempts    integer NOT NULL CHECK (max_attempts >= 1),
    retry_delay     interval NOT NULL CHECK (retry_delay BETWEEN '1 ms' AND '1 h'),
    batch_size      integer NOT NULL CHECK (batch_size >= 1),
    batch_time      interval NOT NULL CHECK (batch_time BETWEEN '1 ms' AND '1 h'),
    start_after     bigint NOT NULL CHECK (start_after >= 0),
    paused          boolean NOT NULL,
    restored        boolean NOT NULL,
    shadow_schema   text,
    CHECK (num_nonnulls(statement, function) = 1)
) USING heap;
COMMENT ON TABLE event_store.registered_projections IS
'What create_projection() and alter_projection() have been told; to be read by the view projections. The owner of the database may read and fill it, so that a dump can be made and restored; what a restore brings is paused until resume_projection().';

-- No foreign keys between these tables: pg_restore -j fills them in any order.

-- Written at the end of every batch, together with what the handler has written.
CREATE TABLE event_store.projection_checkpoints (
    projection      text COLLATE "C" NOT NULL,
    rebuild         boolean NOT NULL,
    partition       integer NOT NULL CHECK (partition BETWEEN 1 AND 256),
    position        bigint NOT NULL CHECK (position >= 0),
    event_id        uuid,
    events          bigint NOT NULL,
    batches         bigint NOT NULL,
    errors          bigint NOT NULL,
    own_appends     bigint NOT NULL,
    rate            double precision NOT NULL,
    updated_at      timestamptz NOT NULL,
    attempts        integer NOT NULL,
    failed          boolean NOT NULL,
    retry_at        timestamptz,
    error_position  bigint,
    error_event_id  uuid,
    error_stream    text,
    error_type      text,
    error_sqlstate  text,
    error_message   text,
    error_context   text,
    error_at        timestamptz,
    PRIMARY KEY (projection, rebuild, partition)
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE event_store.projection_checkpoints IS
'How far the partitions of each projection are, and what went wrong last; to be read by the view projections. The owner of the database may read and fill it, so that a dump can be made and restored.';

CREATE TABLE event_store.projection_parked (
    projection      text COLLATE "C" NOT NULL,
    rebuild         boolean NOT NULL,
    position        bigint NOT NULL,
    event_id        uuid NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    type            text NOT NULL,
    attempts        integer NOT NULL,
    sqlstate        text,
    message         text,
    context         text,
    parked_at       timestamptz NOT NULL,
    tried_at        timestamptz NOT NULL,
    PRIMARY KEY (projection, rebuild, position)
) USING heap;
COMMENT ON TABLE event_store.projection_parked IS
'The events that projections have parked; to be read by the view parked_events. The owner of the database may read and fill it, so that a dump can be made and restored.';

SELECT pg_catalog.pg_extension_config_dump('event_store.registered_projections', '');
SELECT pg_catalog.pg_extension_config_dump('event_store.projection_checkpoints', '');
SELECT pg_catalog.pg_extension_config_dump('event_store.projection_parked', '');

-- A database owner who is no superuser can dump and restore.
GRANT SELECT, INSERT ON event_store.registered_projections, event_store.projection_checkpoints,
    event_store.projection_parked TO pg_database_owner;

CREATE FUNCTION event_store._skip_subscribed_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_stat_activity a
                WHERE a.pid = pg_backend_pid() AND a.backend_type LIKE 'logical replication%') THEN
        RETURN NULL;
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
COMMENT ON FUNCTION event_store._skip_subscribed_row() IS
'Trigger function: discards what a subscription brings. The projections of another server are run there.';

CREATE FUNCTION event_store._check_projection() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r
                    WHERE r.oid = NEW.owner AND pg_has_role(r.oid, 'USAGE')) THEN
        NEW.owner := (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user);
    END IF;
    -- An inline one goes on by its trigger; but not a rebuild, whose shadows may not be there yet.
    NEW.restored := NEW.mode <> 'inline' OR NEW.shadow_schema IS NOT NULL;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION event_store._check_projection() IS
'Trigger function: a projection that a restore brings waits for resume_projection(), since its tables may not be there yet; and it belongs to whoever restores it, if he is not a member of its owner.';

CREATE FUNCTION event_store._check_projection_row() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM event_store.registered_projections p
                WHERE p.name = NEW.projection AND NOT pg_has_role(p.owner, 'USAGE')) THEN
        RAISE EXCEPTION 'must be owner of projection %', NEW.projection
            USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION event_store._check_projection_row() IS
'Trigger function: accepts what a restore brings about a projection only from a role that owns it, if it is there already.';

CREATE TRIGGER check_projection BEFORE INSERT ON event_store.registered_projections
    FOR EACH ROW EXECUTE FUNCTION event_store._check_projection();
ALTER TABLE event_store.registered_projections ENABLE ALWAYS TRIGGER check_projection;
CREATE TRIGGER skip_subscribed_row BEFORE INSERT OR UPDATE OR DELETE ON event_store.registered_projections
    FOR EACH ROW EXECUTE FUNCTION event_store._skip_subscribed_row();
ALTER TABLE event_store.registered_projections ENABLE REPLICA TRIGGER skip_subscribed_row;
COMMENT ON TRIGGER skip_subscribed_row ON event_store.registered_projections IS
'Discards what a subscription brings.';
COMMENT ON TRIGGER check_projection ON event_store.registered_projections IS
'Pauses a projection that a restore brings, and gives it to whoever restores it, if he is not a member of its owner.';
CREATE TRIGGER check_projection BEFORE INSERT ON event_store.projection_checkpoints
    FOR EACH ROW EXECUTE FUNCTION event_store._check_projection_row();
ALTER TABLE event_store.projection_checkpoints ENABLE ALWAYS TRIGGER check_projection;
CREATE TRIGGER skip_subscribed_row BEFORE INSERT OR UPDATE OR DELETE ON event_store.projection_checkpoints
    FOR EACH ROW EXECUTE FUNCTION event_store._skip_subscribed_row();
ALTER TABLE event_store.projection_checkpoints ENABLE REPLICA TRIGGER skip_subscribed_row;
COMMENT ON TRIGGER skip_subscribed_row ON event_store.projection_checkpoints IS
'Discards what a subscription brings.';
COMMENT ON TRIGGER check_projection ON event_store.projection_checkpoints IS
'Accepts a row only from a role that owns the projection.';
CREATE TRIGGER check_projection BEFORE INSERT ON event_store.projection_parked
    FOR EACH ROW EXECUTE FUNCTION event_store._check_projection_row();
ALTER TABLE event_store.projection_parked ENABLE ALWAYS TRIGGER check_projection;
CREATE TRIGGER skip_subscribed_row BEFORE INSERT OR UPDATE OR DELETE ON event_store.projection_parked
    FOR EACH ROW EXECUTE FUNCTION event_store._skip_subscribed_row();
ALTER TABLE event_store.projection_parked ENABLE REPLICA TRIGGER skip_subscribed_row;
COMMENT ON TRIGGER skip_subscribed_row ON event_store.projection_parked IS
'Discards what a subscription brings.';
COMMENT ON TRIGGER check_projection ON event_store.projection_parked IS
'Accepts a row only from a role that owns the projection.';

CREATE FUNCTION event_store._project_inline() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_project_inline';
COMMENT ON FUNCTION event_store._project_inline() IS
'Trigger function: runs the inline projection that its argument names over the events that have just been inserted, as the projection''s owner. create_projection() makes the trigger.';

CREATE FUNCTION event_store.create_projection(
    name text,
    event_table regclass,
    statement text DEFAULT NULL,
    function regprocedure DEFAULT NULL,
    types text[] DEFAULT NULL,
    categories text[] DEFAULT NULL,
    mode text DEFAULT 'async',
    partitions integer DEFAULT 1,
    search_path text DEFAULT NULL,
    tables regclass[] DEFAULT NULL,
    on_error text DEFAULT 'stop',
    max_attempts integer DEFAULT 5,
    retry_delay interval DEFAULT '200 ms',
    batch_size integer DEFAULT 100000,
    batch_time interval DEFAULT '100 ms',
    start_after bigint DEFAULT 0)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_create_projection';
COMMENT ON FUNCTION event_store.create_projection(text, regclass, text, regprocedure, text[], text[], text, integer, text, regclass[], text, integer, interval, integer, interval, bigint) IS
'Makes a projection: a read model that is kept up to date from the feed of an event table. The handler is either an SQL statement, which sees a batch of events, in the order of their positions, as a table named events with the columns of event_store.event; or a function (event event_store.event), which is called for each event in turn, and belongs to the caller or a superuser. It runs with the rights of the projection''s owner, who is the caller, and with search_path (by default the one of now; pg_temp is searched last). types and categories: only such events (NULL: all). mode: async (in the background, needs shared_preload_libraries), inline (in the transaction that appends, which it fails by an error; takes the privilege TRIGGER on the event table), manual (by run_projection() only). In async and manual what the handler writes and the checkpoint are committed together, so each event counts exactly once. partitions: so many parts, by a hash of the stream, are run side by side; each stream keeps its order. tables: what the handler writes, named without schema; rebuild_projection() and check_projection() need it. on_error, once max_attempts have failed, with pauses of retry_delay that double up to a minute: stop (status failed), park (puts the event aside and goes on), park_stream (and whatever comes later in its stream). Errors that are not an event''s own, such as a missing table or privilege, a deadlock, or a full disk, always stop. batch_size, batch_time: a batch has at most so many events, and so many that it takes about so long. start_after: a position; 0 is the beginning. Needs SELECT on the event table. Raises 42710 where the name is taken, 42P13 where the function cannot be a handler, 55000 where the owner cannot log in, 22004 and 22023 for bad arguments, SE007 where an event fails while an inline projection catches up.';

CREATE FUNCTION event_store.alter_projection(
    name text,
    statement text DEFAULT NULL,
    function regprocedure DEFAULT NULL,
    types text[] DEFAULT NULL,
    categories text[] DEFAULT NULL,
    mode text DEFAULT NULL,
    partitions integer DEFAULT NULL,
    search_path text DEFAULT NULL,
    tables regclass[] DEFAULT NULL,
    on_error text DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    retry_delay interval DEFAULT NULL,
    batch_size integer DEFAULT NULL,
    batch_time interval DEFAULT NULL,
    owner regrole DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_alter_projection';
COMMENT ON FUNCTION event_store.alter_projection(text, text, regprocedure, text[], text[], text, integer, text, regclass[], text, integer, interval, integer, interval, regrole) IS
'Changes a projection, from the event on where it is; what is NULL stays, and an empty array of types or categories means all. A change of mode or partitions loses no event and handles none twice: the remaining ones are handled in this transaction first, where that is needed. To inline, and back, it keeps appenders out while it handles the last few. owner: another role that the caller is a member of, and that has what the handler needs. Only the owner may. Raises 42704 for an unknown projection, 55000 while it is being rebuilt, and what create_projection() raises.';

CREATE FUNCTION event_store.drop_projection(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_drop_projection';
COMMENT ON FUNCTION event_store.drop_projection(text) IS
'Forgets a projection, its checkpoints and parked events. What it has written stays. Waits for the batch that is being run. Only the owner may; raises 42704 for an unknown one.';

CREATE FUNCTION event_store.pause_projection(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_pause_projection';
COMMENT ON FUNCTION event_store.pause_projection(text) IS
'Stops a projection until resume_projection(); once it has been committed nothing of it runs. Waits for the batch that is being run. Only the owner may. Raises 55000 for an inline one, which would never see what it missed.';

CREATE FUNCTION event_store.resume_projection(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_resume_projection';
COMMENT ON FUNCTION event_store.resume_projection(text) IS
'Lets a projection go on that is paused, has failed, or has come from a dump. Only the owner may.';

CREATE FUNCTION event_store.reset_projection(name text, "position" bigint DEFAULT 0) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_reset_projection';
COMMENT ON FUNCTION event_store.reset_projection(text, bigint) IS
'Moves the checkpoint of a projection to the newest event at or before a position (0: to the beginning), so that later events are handled again, and forgets what it has parked behind it. Its tables stay as they are: empty them behind it in the same transaction, or use rebuild_projection(). Only the owner may. Raises 55000 for an inline one, 22023 for a position that there is not yet.';

CREATE FUNCTION event_store.run_projection(
    name text,
    max_batches bigint DEFAULT NULL,
    OUT events bigint,
    OUT batches bigint,
    OUT parked bigint,
    OUT "position" bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_run_projection';
COMMENT ON FUNCTION event_store.run_projection(text, bigint) IS
'Runs a projection here and now, as its owner, up to the mark, or so many batches; before that its rebuild, if there is one. Returns how many events it has handled, in how many batches, how many events it has parked, and the least checkpoint. It is part of the caller''s transaction, which must be READ COMMITTED (25001). An event that fails raises SE007 projection_failed, unless it is to be parked: that happens at once. The handler is security-restricted: it can change no role, and leave behind no deferred triggers and no temporary tables. Only the owner may. Raises 55000 for one that is paused or inline.';

CREATE FUNCTION event_store.retry_parked(name text, "position" bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_retry_parked';
COMMENT ON FUNCTION event_store.retry_parked(text, bigint) IS
'Runs the parked event at that position again, or all of them in their order (NULL), each in a subtransaction of its own; returns how many went well, which are not parked any more. With park_stream those that wait behind one that fails again go on waiting. Only the owner may. Raises 42704 where no event is parked there, 55000 where one waits behind another.';

CREATE FUNCTION event_store.drop_parked(name text, "position" bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_drop_parked';
COMMENT ON FUNCTION event_store.drop_parked(text, bigint) IS
'Forgets the parked event at that position, or all (NULL): the projection will never have handled it. Returns how many. Only the owner may. Raises 42704 where no event is parked there.';

CREATE FUNCTION event_store.wait_for_projection(
    name text,
    "position" bigint DEFAULT NULL,
    timeout interval DEFAULT '10 s')
    RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_wait_for_projection';
COMMENT ON FUNCTION event_store.wait_for_projection(text, bigint, interval) IS
'Waits until a projection has handled all events up to a position, such as last_position of an append (NULL: all that can be read now), at most for timeout, and 60 s: so what was written can be read. Whether it has. True at once for an inline one. Needs SELECT or INSERT on the event table, or to be the owner. The snapshot of the calling statement is held meanwhile. Raises SE007 where the projection has failed before that position, 55000 where it is paused, 25001 where the transaction itself has appended.';

CREATE FUNCTION event_store.rebuild_projection(name text, shadow_schema text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_rebuild_projection';
COMMENT ON FUNCTION event_store.rebuild_projection(text, text) IS
'Replays all events from start_after on into shadows of the projection''s tables, in a new schema shadow_schema (by default the name of the projection with _rebuild), in the background or by run_projection(); the live tables go on being maintained. When it has caught up, one transaction writes what differs into the live tables: views, privileges and indexes stay, readers see the old or the new. It goes on after a restart; see the view projections for its progress. Handlers must name their tables without schema: one that writes a live table is stopped, and rolled back. Only the owner may, who needs CREATE on the database. It has ended when rebuild_position is NULL there. Raises 55000 where it is not known which tables it maintains, 42P06 where the schema exists.';

CREATE FUNCTION event_store.cancel_rebuild(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_cancel_rebuild';
COMMENT ON FUNCTION event_store.cancel_rebuild(text) IS
'Ends a rebuild; the shadows are dropped, what is live is not touched. Only the owner may. Raises 55000 where there is none.';

CREATE FUNCTION event_store.dry_run_projection(
    name text,
    after bigint DEFAULT NULL,
    max_count bigint DEFAULT NULL,
    OUT events bigint,
    OUT batches bigint,
    OUT failed bigint,
    OUT duration interval,
    OUT errors jsonb)
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_dry_run_projection';
COMMENT ON FUNCTION event_store.dry_run_projection(text, bigint, bigint) IS
'Runs the handler over the events after a position (NULL: after its checkpoint), at most max_count, and takes everything back. Returns how many events went well, in how many batches, how many failed, how long it took, and the first 100 errors as a JSON array of position, event_id, stream, type, sqlstate and message. An event that fails is left out. The projection, and what it writes, is locked meanwhile; sequences move on. Only the owner may. Raises 25001 unless the transaction is READ COMMITTED.';

CREATE FUNCTION event_store.check_projection(
    name text,
    against_live boolean DEFAULT false)
    RETURNS TABLE ("table" regclass, rows bigint, digest text, same boolean, difference jsonb)
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_check_projection';
COMMENT ON FUNCTION event_store.check_projection(text, boolean) IS
'Replays all events into temporary shadows of the projection''s tables, twice, and compares; with against_live once, up to the checkpoint, and compares with what is live. A row per table: how many rows the last replay has, a digest of them, whether both are the same, and the first difference. A projection whose replays differ depends on something other than its events: chance, other tables, the order of rows, or how many events come in one batch, which differs between the two. The time of the transaction is the same in both: against_live finds that. Everything is taken back. The projection is locked meanwhile, and with against_live an inline one keeps appenders out. Only the owner may. Raises what rebuild_projection() raises, and SE007 where an event fails.';

CREATE FUNCTION event_store._projection_lag(
    event_table regclass,
    "position" bigint,
    OUT newest bigint,
    OUT events bigint,
    OUT seconds double precision)
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_projection_lag';
COMMENT ON FUNCTION event_store._projection_lag(regclass, bigint) IS
'For the view projections: the newest checkpoint of an event table, how many positions another one is behind it, and for how long the oldest event behind that has been there, in seconds. NULL where the caller may not know.';

CREATE FUNCTION event_store._projector_pid(owner oid) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_projector_pid';
COMMENT ON FUNCTION event_store._projector_pid(oid) IS
'For the view projections: the pid of a background process that runs the projections of that role in this database; NULL: there is none.';

-- Of the partitions of a projection, or of its rebuild, what they have in common.
CREATE VIEW event_store._projection_progress AS
SELECT c.projection, c.rebuild,
       min(c."position") AS "position",
       sum(c.rate) AS rate,
       sum(c.events)::pg_catalog.int8 AS events,
       sum(c.batches)::pg_catalog.int8 AS batches,
       sum(c.errors)::pg_catalog.int8 AS errors,
       max(c.own_appends) AS own_appends,
       max(c.updated_at) AS updated_at,
       bool_or(c.failed) AS failed,
       max(c.attempts) AS attempts,
       max(c.retry_at) AS retry_at
  FROM event_store.projection_checkpoints c
 GROUP BY c.projection, c.rebuild;
COMMENT ON VIEW event_store._projection_progress IS
'For the view projections: the partitions of each projection, and of its rebuild, taken together.';

CREATE VIEW event_store.projections WITH (security_barrier) AS
SELECT p.name,
       p.owner,
       p.event_table,
       p.mode,
       CASE WHEN p.restored THEN 'restored'
            WHEN p.paused THEN 'paused'
            WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.oid = p.owner) THEN 'orphaned'
            WHEN c.failed OR r.failed THEN 'failed'
            WHEN c.attempts > 0 OR r.attempts > 0 THEN 'retrying'
            WHEN p.mode = 'async' THEN 'running'
            ELSE 'ready' END AS status,
       p.partitions,
       c."position",
       CASE WHEN p.mode = 'inline' THEN 0 ELSE l.events END AS lag_events,
       CASE WHEN p.mode = 'inline' THEN 0 ELSE l.seconds END AS lag_seconds,
       -- It is written with each batch, and says little long after the last one.
       CASE WHEN c.updated_at < pg_catalog.clock_timestamp() - interval '10 seconds' THEN 0
            ELSE c.rate END AS rate,
       c.events,
       c.batches,
       c.errors,
       (SELECT count(*) FROM event_store.projection_parked k
         WHERE k.projection = p.name AND NOT k.rebuild) AS parked,
       c.own_appends,
       greatest(c.attempts, r.attempts) AS attempts,
       coalesce(c.retry_at, r.retry_at) AS retry_at,
       e.error_at AS last_error_at,
       e.error_position AS last_error_position,
       e.error_event_id AS last_error_event_id,
       e.error_stream AS last_error_stream,
       e.error_type AS last_error_type,
       e.error_sqlstate AS last_error_sqlstate,
       e.error_message AS last_error,
       e.error_context AS last_error_context,
       c.updated_at,
       CASE WHEN p.mode = 'async' OR r.projection IS NOT NULL
            THEN event_store._projector_pid(p.owner) END AS worker_pid,
       r."position" AS rebuild_position,
       pg_catalog.round((100.0 * r."position" / nullif(l.newest, 0))::pg_catalog.numeric, 1) AS rebuild_percent,
       CASE WHEN r.rate > 0
            THEN pg_catalog.make_interval(secs => greatest(l.newest - r."position", 0) / r.rate) END AS rebuild_eta
  FROM event_store.registered_projections p
  LEFT JOIN event_store._projection_progress c ON c.projection = p.name AND NOT c.rebuild
  LEFT JOIN event_store._projection_progress r ON r.projection = p.name AND r.rebuild
  LEFT JOIN LATERAL (
        SELECT x.*
          FROM event_store.projection_checkpoints x
         WHERE x.projection = p.name AND x.error_at IS NOT NULL
           AND pg_catalog.pg_has_role(p.owner, 'USAGE')
         ORDER BY x.failed DESC, x.error_at DESC
         LIMIT 1) e ON true
 CROSS JOIN LATERAL event_store._projection_lag(p.event_table, coalesce(c."position", 0)) l
 WHERE pg_catalog.pg_has_role(p.owner, 'USAGE')
    OR pg_catalog.has_table_privilege(p.event_table, 'SELECT');
COMMENT ON VIEW event_store.projections IS
'The projections whose owner the caller is, or whose event table he may read. status: running (async), ready (inline and manual), paused, restored (paused since it came from a dump), retrying (it failed, and will be tried again at retry_at, or was interrupted by that), failed (it stands still until resume_projection()), orphaned (its owner has been dropped; a superuser gives it another one by alter_projection()). position: the least checkpoint of its partitions; lag_events: at most so many events it is behind what can be read, lag_seconds: the age of the oldest of these; rate: events a second of late; events, batches, errors: since it was made; parked: events that it has parked; own_appends: how many batches in a row have appended to its own event table, which a handler that answers itself does for ever; attempts: that failed, of the last event or batch. last_error and what belongs to it are NULL for all but the owner. worker_pid: a process that runs projections of that owner. rebuild_position, rebuild_percent, rebuild_eta: NULL unless it is being rebuilt.';
GRANT SELECT ON event_store.projections TO PUBLIC;

CREATE VIEW event_store.parked_events WITH (security_barrier) AS
SELECT k.projection, k."position", k.event_id, k.stream, k.type, k.attempts,
       k.sqlstate, k.message, k.context, k.parked_at, k.tried_at
  FROM event_store.projection_parked k
  JOIN event_store.registered_projections p ON p.name = k.projection
 WHERE NOT k.rebuild
   AND pg_catalog.pg_has_role(p.owner, 'USAGE');
COMMENT ON VIEW event_store.parked_events IS
'The events that the caller''s projections have parked: which, why (sqlstate, message and context of the error; NULL where an event only waits behind an earlier one of its stream), how often it was tried, when it was parked and when tried last. retry_parked() and drop_parked() take them away.';
GRANT SELECT ON event_store.parked_events TO PUBLIC;
