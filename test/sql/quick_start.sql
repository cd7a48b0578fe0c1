-- The four statements of the README, and what a user looks at next.

CREATE EXTENSION event_store;
SELECT event_store.create_event_table('orders');

SELECT first_version, last_version, first_position, last_position, duplicate
  FROM event_store.append('orders', 'order-1', 'OrderPlaced',  '{"total": 40}', expected_version => 0);
SELECT first_version, last_version, first_position, last_position, duplicate
  FROM event_store.append('orders', 'order-1', 'OrderShipped', '{"carrier": "DHL"}', expected_version => 1);

SELECT version, type, data FROM event_store.read_stream('orders', 'order-1');
SELECT position, stream, type FROM event_store.read_all('orders', after => 0);

-- a plain INSERT, and a COPY, are appends too
INSERT INTO orders (stream, type, data) VALUES ('order-1', 'OrderDelivered', '{}');
COPY orders (stream, type, data) FROM stdin;
order-2	OrderPlaced	{"total": 2}
order-2	OrderCancelled	{}
\.
SELECT position, stream, version, type, schema_version, data FROM orders ORDER BY position;

SELECT stream, version, last_position FROM event_store.streams('orders');
SELECT checkpoint, jsonb_path_query_array(events, '$[*].type') AS types
  FROM event_store.read_batch('orders', after => 2, max_count => 2);
SELECT event_table, last_position, guarded, problem FROM event_store.event_tables;

SELECT event_store.drop_event_table('orders');
DROP EXTENSION event_store;
