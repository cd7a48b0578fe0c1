-- One event.  The command line gives :data, :round, :streams and :n = 0.  Each
-- client goes round so many streams of its own, so their versions rise.
\set stream :n % :streams
\set n :n + 1
SELECT * FROM event_store.append('ev', 'order-' || :round || '-' || :client_id || '-' || :stream, 'OrderPlaced', :data);
