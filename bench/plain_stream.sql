\set stream random(0, 999)
SELECT * FROM plain WHERE stream = 'order-' || :stream ORDER BY version;
