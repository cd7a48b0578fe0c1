\set n :n + 1
SELECT * FROM event_store.append('ev', 'order' || :client_id || '-' || :round || '-' || :client_id || '-' || :n, 'OrderPlaced', :data, expected_version => 0);
