-- One event.  The command line gives :data, :round and :n.  Each client goes
-- round 100 streams of its own, so their versions rise; the expected version
-- is not given.
\set stream :n % 100
\set n :n + 1
SELECT * FROM event_store.append('ev', 'order-' || :round || '-' || :client_id || '-' || :stream, 'OrderPlaced', :data);
