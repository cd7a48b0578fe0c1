-- The event table of a stress run, and read models of every kind.  Their projections are
-- what check_server.c knows them by.
CREATE EXTENSION event_store;
SELECT event_store.create_event_table('ev');

CREATE TABLE totals (stream text PRIMARY KEY, n bigint, total numeric, last_version bigint, last_position bigint);
CREATE TABLE parts (LIKE totals INCLUDING ALL);
CREATE TABLE at_once (LIKE totals INCLUDING ALL);
CREATE TABLE one_by_one (stream text PRIMARY KEY, version bigint, n bigint);

-- Fails unless each stream's events come one by one, in their order.
CREATE FUNCTION one_by_one(e event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF e.version = 1 THEN
        INSERT INTO one_by_one VALUES (e.stream, 1, 1);
    ELSE
        UPDATE one_by_one SET version = e.version, n = n + 1 WHERE stream = e.stream AND version = e.version - 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'version % of % is not the next', e.version, e.stream;
        END IF;
    END IF;
END $$;

SELECT event_store.create_projection(name, 'ev', format($$
    INSERT INTO %1$I
    SELECT stream, count(*), sum((data ->> 'n')::bigint), max(version), max(position) FROM events GROUP BY stream
    ON CONFLICT (stream) DO UPDATE SET
        n = %1$I.n + excluded.n, total = %1$I.total + excluded.total,
        last_version = excluded.last_version, last_position = excluded.last_position $$, name),
    partitions => partitions, mode => mode, categories => categories)
  FROM (VALUES ('totals', 1, 'async', NULL), ('parts', 2, 'async', NULL), ('at_once', 1, 'inline', '{d}'::text[]))
    AS p (name, partitions, mode, categories);
SELECT event_store.create_projection('one_by_one', 'ev', function => 'one_by_one(event_store.event)');
