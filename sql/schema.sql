\echo Use "CREATE EXTENSION event_store" to load this file. \quit

-- Made here, so that it belongs to the extension, and so to a superuser: whoever
-- could create functions in it could pass them off as ours.
CREATE SCHEMA event_store;
COMMENT ON SCHEMA event_store IS
'Event stores in tables: the functions, types and views of the extension event_store.';

GRANT USAGE ON SCHEMA event_store TO PUBLIC;

-- The row that every reader returns: an event table's own columns, in their
-- order in the table.
CREATE TYPE event_store.event AS (
    position        bigint,
    stream          text COLLATE "C",
    version         bigint,
    event_id        uuid,
    type            text COLLATE "C",
    schema_version  integer,
    data            jsonb,
    metadata        jsonb,
    correlation_id  text,
    causation_id    text,
    occurred_at     timestamptz,
    recorded_at     timestamptz
);
COMMENT ON TYPE event_store.event IS
'An event as the readers return it: the columns that every event table begins with, in the same order. Columns that users add to their event tables are not part of it.';
