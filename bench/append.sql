-- One event.  :table, :data, :round and :n come from the command line.  A
-- client goes round 1,000 streams of its own, so that their versions rise.
\set stream :n % 1000
\set n :n + 1
SELECT * FROM event_store.append(':table', 'order-' || :round || '-' || :client_id || '-' || :stream, 'OrderPlaced', :data);
