-- What the consumer in C writes: its read model, and its checkpoint beside it.
CREATE TABLE events_per_type (
    event_table text,
    type        text,
    events      bigint NOT NULL,
    PRIMARY KEY (event_table, type)
);

-- position and event_id name the last event that is in the read model.
-- To make the read model anew, delete this first, then the rows above, in one
-- transaction; the consumer starts again from the first event.
CREATE TABLE events_per_type_checkpoint (
    event_table text PRIMARY KEY,
    position    bigint NOT NULL,
    event_id    uuid
);
