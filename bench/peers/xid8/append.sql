\set stream :n % :streams
\set category :client_id * :spread
\set n :n + 1
SELECT append('order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, '{OrderPlaced}', ARRAY[:data::jsonb]);
