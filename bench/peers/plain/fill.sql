-- The version 7 UUIDs of fill.sql of event_store rise too.
INSERT INTO plain (stream, version, event_id, type, data)
SELECT :'prefix' || '-' || i % :streams, i / :streams + 1, (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 16, '0') || left(md5(:'prefix'), 8) || lpad(to_hex(i), 8, '0'))::uuid, 'OrderPlaced', :'data'
  FROM generate_series(0, :events - 1) i;
VACUUM (ANALYZE) plain;
