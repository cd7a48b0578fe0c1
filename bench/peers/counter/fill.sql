UPDATE counter SET position = position + :events;
INSERT INTO events (position, stream, version, type, data)
SELECT (SELECT position FROM counter) - :events + i + 1, :'prefix' || '-' || i % :streams, i / :streams + 1, 'OrderPlaced', :'data' FROM generate_series(0, :events - 1) i;
VACUUM (ANALYZE) events;
