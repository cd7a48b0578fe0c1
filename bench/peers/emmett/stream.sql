-- The query of its client.
\set stream random(0, :streams - 1)
SELECT stream_id, stream_position, global_position, message_data, message_metadata, message_schema_version, message_type, message_id FROM emt_messages WHERE stream_id = 's' || :length || '-' || :stream AND partition = E'emt\072default' AND is_archived = FALSE ORDER BY stream_position ASC;
