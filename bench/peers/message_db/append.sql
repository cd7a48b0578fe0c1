\set stream :n % :streams
\set category :client_id * :spread
\set n :n + 1
SELECT message_store.write_message(gen_random_uuid()::varchar, 'order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, 'OrderPlaced', :data);
