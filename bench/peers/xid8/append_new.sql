\set n :n + 1
SELECT append('order' || :client_id || '-' || :round || '-' || :client_id || '-' || :n, '{OrderPlaced}', ARRAY[:data::jsonb], 0);
