SELECT count(message_store.write_message(gen_random_uuid()::varchar, $1, type, data)) FROM unnest($2, $3) AS event(type, data)
