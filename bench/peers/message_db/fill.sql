INSERT INTO message_store.messages (stream_name, position, type, data)
SELECT :'prefix' || '-' || i % :streams, i / :streams, 'OrderPlaced', :'data' FROM generate_series(0, :events - 1) i;
VACUUM (ANALYZE) message_store.messages;
