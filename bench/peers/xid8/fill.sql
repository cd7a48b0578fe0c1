INSERT INTO events (stream, version, type, data)
SELECT :'prefix' || '-' || i % :streams, i / :streams + 1, 'OrderPlaced', :'data' FROM generate_series(0, :events - 1) i;
VACUUM (ANALYZE) events;
