-- cursor: position
SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT 1000
