\set stream random(0, :streams - 1)
SELECT * FROM plain WHERE stream = 's' || :length || '-' || :stream ORDER BY version;
