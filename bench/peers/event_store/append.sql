-- One event.  Each client goes round so many streams of its own, so their
-- versions rise; the categories are the clients', or one where :spread is 0.
\set stream :n % :streams
\set category :client_id * :spread
\set n :n + 1
SELECT * FROM event_store.append('ev', 'order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, 'OrderPlaced', :data);
