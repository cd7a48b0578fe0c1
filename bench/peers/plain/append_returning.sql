-- As append.sql, and answers what append() answers.
\set stream :n % :streams
\set version :n / :streams + 1
\set category :client_id * :spread
\set id (:round * 1000000000 + :n) * 64 + :client_id
\set n :n + 1
INSERT INTO plain (stream, version, event_id, type, data) VALUES ('order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, :version, lpad(to_hex(:id::bigint), 32, '0')::uuid, 'OrderPlaced', :data) RETURNING stream, version, version, position, position, ARRAY[event_id], false;
