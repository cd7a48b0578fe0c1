\set n :n + 1
SELECT * FROM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY[:data::jsonb], '{"{}"}', '{1}', '{OrderPlaced}', '{E}', 'order' || :client_id || '-' || :round || '-' || :client_id || '-' || :n, 'order', 0, E'emt\072default');
