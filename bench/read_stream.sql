-- One of 1,000 streams of 100 events each.
\set stream random(0, 999)
SELECT * FROM event_store.read_stream('ev', 'order-' || :stream);
