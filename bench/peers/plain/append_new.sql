\set id (:round * 1000000000 + :n) * 64 + :client_id
\set n :n + 1
INSERT INTO plain (stream, version, event_id, type, data) VALUES ('order' || :client_id || '-' || :round || '-' || :client_id || '-' || :n, 1, lpad(to_hex(:id::bigint), 32, '0')::uuid, 'OrderPlaced', :data);
