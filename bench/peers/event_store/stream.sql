\set stream random(0, :streams - 1)
SELECT * FROM event_store.read_stream('ev', 's' || :length || '-' || :stream);
