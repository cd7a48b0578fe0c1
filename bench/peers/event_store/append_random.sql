-- To one of the streams that fill.sql has made.
\set stream random(0, :streams - 1)
SELECT * FROM event_store.append('ev', 'order-' || :stream, 'OrderPlaced', :data);
