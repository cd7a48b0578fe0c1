-- The same, with a version that is surely new, and rises.
\set stream random(0, :streams / 8 - 1) * 8 + :client_id
\set version (:round * 1000000000 + :n) * 64 + :client_id
\set n :n + 1
INSERT INTO plain (stream, version, event_id, type, data) VALUES ('order-' || :stream, :version, lpad(to_hex(:version::bigint), 32, 'f')::uuid, 'OrderPlaced', :data);
