-- So many :events in so many streams :prefix-n, strewn over the log.
BEGIN;
LOCK TABLE ev IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO ev (stream, type, data)
SELECT :'prefix' || '-' || i % :streams, 'OrderPlaced', :'data' FROM generate_series(0, :events - 1) i;
COMMIT;
VACUUM (ANALYZE) ev;
