INSERT INTO emt_streams (stream_id, stream_position, partition, stream_type, stream_metadata)
SELECT :'prefix' || '-' || i, :events / :streams, 'emt:default', 'order', '{}' FROM generate_series(0, :streams - 1) i;
INSERT INTO emt_messages (stream_id, stream_position, partition, transaction_id, message_schema_version, message_id, message_type, message_data, message_metadata)
SELECT :'prefix' || '-' || i % :streams, i / :streams + 1, 'emt:default', pg_current_xact_id(), '1', gen_random_uuid(), 'OrderPlaced', :'data', '{}'
  FROM generate_series(0, :events - 1) i;
VACUUM (ANALYZE) emt_streams, emt_messages;
