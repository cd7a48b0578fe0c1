\set stream :n % :streams
\set category :client_id * :spread
\set n :n + 1
SELECT pgq.insert_event('bench', 'OrderPlaced', :data, 'order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, NULL, NULL, NULL);
