-- cursor: reader
SELECT * FROM next_events($1)
