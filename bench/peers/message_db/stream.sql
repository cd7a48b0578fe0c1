\set stream random(0, :streams - 1)
SELECT * FROM message_store.get_stream_messages('s' || :length || '-' || :stream);
