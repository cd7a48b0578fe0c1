-- What the consumer in Node writes: its read model, and its checkpoint beside it.
CREATE TABLE events_per_stream (
    event_table text,
    stream      text,
    events      bigint NOT NULL,
    version     bigint NOT NULL,    -- of the stream's last event
    PRIMARY KEY (event_table, stream)
);

-- position and event_id name the last event that is in the read model.
-- To make the read model anew, delete this first, then the rows above, in one
-- transaction; the consumer starts again from the first event.
CREATE TABLE events_per_stream_checkpoint (
    event_table text PRIMARY KEY,
    position    bigint NOT NULL,
    event_id    uuid
);
