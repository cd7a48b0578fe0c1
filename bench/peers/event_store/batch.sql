SELECT * FROM event_store.append_batch('ev', $1, $2, $3)
