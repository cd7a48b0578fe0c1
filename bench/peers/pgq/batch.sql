SELECT count(pgq.insert_event('bench', type, data::text, $1, NULL, NULL, NULL)) FROM unnest($2, $3) AS event(type, data)
