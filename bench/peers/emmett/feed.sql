-- cursor: global_position
SELECT stream_id, stream_position, global_position, message_data, message_metadata, message_schema_version, message_type, message_id
  FROM emt_messages
 WHERE partition = 'emt:default' AND is_archived = FALSE AND transaction_id < pg_snapshot_xmin(pg_current_snapshot()) AND global_position >= $1 + 1
 ORDER BY transaction_id, global_position
 LIMIT 1000
