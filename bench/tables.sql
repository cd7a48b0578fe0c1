-- An event table, and a plain table with its columns and indexes, as one would
-- write it.  Not clock_timestamp(): that is volatile and would slow down COPY.
SELECT event_store.create_event_table('ev');
CREATE SEQUENCE plain_position;
CREATE TABLE plain (LIKE ev INCLUDING ALL);
ALTER TABLE plain
    ALTER position SET DEFAULT nextval('plain_position'),
    ALTER recorded_at SET DEFAULT now();
