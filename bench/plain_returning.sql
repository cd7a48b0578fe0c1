-- As plain_insert.sql, with an answer like that of append().
\set stream :n % :streams
\set version :n / :streams + 1
\set id (:round * 1000000000 + :n) * 64 + :client_id
\set n :n + 1
INSERT INTO plain (stream, version, event_id, type, data) VALUES ('order-' || :round || '-' || :client_id || '-' || :stream, :version, lpad(to_hex(:id::bigint), 32, '0')::uuid, 'OrderPlaced', :data) RETURNING position, version, event_id;
