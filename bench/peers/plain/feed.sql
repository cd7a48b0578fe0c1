-- cursor: position
SELECT * FROM plain WHERE position > $1 ORDER BY position LIMIT 1000
