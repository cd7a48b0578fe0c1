\set stream :n % :streams
\set version :n / :streams
\set category :client_id * :spread
\set n :n + 1
SELECT * FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY[:data::jsonb], '{"{}"}', '{1}', '{OrderPlaced}', '{E}', 'order' || :category || '-' || :round || '-' || :client_id || '-' || :stream, 'order', :version, E'emt\072default');
