\set n :n + 1
SELECT message_store.write_message(gen_random_uuid()::varchar, 'order' || :client_id || '-' || :round || '-' || :client_id || '-' || :n, 'OrderPlaced', :data, NULL, -1);
