-- To streams that fill.sql has made; each of up to eight clients has some of its
-- own, so that nobody waits for a stream.
\set stream random(0, :streams / 8 - 1) * 8 + :client_id
SELECT * FROM event_store.append('ev', 'order-' || :stream, 'OrderPlaced', :data);
