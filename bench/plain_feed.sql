\set after random(0, 98000)
SELECT * FROM plain WHERE position > :after ORDER BY position LIMIT 1000;
