-- 1,000 streams of 100 events each, their events strewn over the log.
BEGIN;
LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO ev (stream, type, data)
SELECT 'order-' || i % 1000, 'OrderPlaced', :'data' FROM generate_series(0, 99999) i;
INSERT INTO plain SELECT * FROM ev ORDER BY position;
COMMIT;
VACUUM (ANALYZE) ev;
VACUUM (ANALYZE) plain;
