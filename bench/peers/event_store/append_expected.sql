\set stream :n % :streams
\set version :n / :streams
\set category :client_id * :spread
\set n :n + 1
SELECT * FROM event_store.append('ev', 'order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, 'OrderPlaced', :data, expected_version => :version);
