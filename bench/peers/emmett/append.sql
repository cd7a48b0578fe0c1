-- pgbench would take the colon for that of a variable.
\set stream :n % :streams
\set category :client_id * :spread
\set n :n + 1
SELECT * FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY[:data::jsonb], '{"{}"}', '{1}', '{OrderPlaced}', '{E}', 'order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, 'order', NULL, E'emt\072default');
