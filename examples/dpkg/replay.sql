-- Replay: the state of every package, folded from the feed alone.
--
-- A consumer's loop: a page after the checkpoint, the state brought up to date,
-- the checkpoint moved.  The page is not filtered in read_all(), so that its
-- last position is a checkpoint.

CREATE TABLE package_state (
    stream      text COLLATE "C" PRIMARY KEY,
    status      text NOT NULL,
    version     text,
    changed_at  timestamptz NOT NULL
);

CREATE FUNCTION replay(page_size bigint, OUT events bigint, OUT pages bigint)
    LANGUAGE plpgsql
AS $$
DECLARE
    last_seen bigint := 0;
    page_end  bigint;
    page_rows bigint;
BEGIN
    events := 0;
    pages := 0;
    LOOP
        -- The last status in the page stands for all before it.
        WITH page AS MATERIALIZED (
            SELECT * FROM event_store.read_all('packages', after => last_seen,
                                               max_count => page_size)
        ), fold AS (
            INSERT INTO package_state
            SELECT DISTINCT ON (stream)
                   stream, data->>'status', data->>'version', occurred_at
              FROM page
             WHERE type = 'PackageStatusChanged'
             ORDER BY stream, version DESC
                ON CONFLICT (stream) DO UPDATE
               SET status = excluded.status,
                   version = excluded.version,
                   changed_at = excluded.changed_at
        )
        SELECT max(position), count(*) INTO page_end, page_rows FROM page;
        EXIT WHEN page_rows = 0;
        last_seen := page_end;
        events := events + page_rows;
        pages := pages + 1;
    END LOOP;
    IF events <> (SELECT count(*) FROM packages) THEN
        RAISE EXCEPTION 'the feed gave % events', events;
    END IF;
END $$;

SELECT clock_timestamp() AS started \gset
SELECT format('replayed %s events in %s pages', events, pages) AS line FROM replay(1000) \gset
SELECT format('%s into the state of %s packages in %s ms', :'line', count(*),
              round(1000 * extract(epoch FROM clock_timestamp() - :'started')))
  FROM package_state;
