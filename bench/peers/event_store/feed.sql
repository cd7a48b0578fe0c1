-- cursor: position
SELECT * FROM event_store.read_all('ev', after => $1, max_count => 1000)
