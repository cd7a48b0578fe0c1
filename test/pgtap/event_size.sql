-- How large an event may be: so large that a batch of the feed can hold it.
SET client_min_messages = warning;
SELECT plan(7);
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'a-1', 'T', '1') \g /dev/null
SELECT throws_like($$ SELECT event_store.append('orders', 'a-1', 'T', to_jsonb(repeat('x', 180000000)), metadata => to_jsonb(repeat('y', 120000000))) $$,
    'event is too large: 3000000__ bytes of data and metadata', 'append: data and metadata together have a limit');
SELECT throws_like($$ INSERT INTO orders (stream, type, data, metadata) VALUES ('a-1', 'T', to_jsonb(repeat('x', 180000000)), to_jsonb(repeat('y', 120000000))) $$,
    'event is too large: 3000000__ bytes of data and metadata', 'INSERT: the same limit');
SELECT throws_ok($$ SELECT event_store.append('orders', 'a-1', 'T', to_jsonb(repeat('x', 210000000))) $$, '54000', NULL, 'the SQLSTATE');
SELECT lives_ok($$ SELECT event_store.append('orders', 'a-1', 'T', to_jsonb(repeat('x', 200000000))) $$, 'an event near the limit');
SELECT event_store.append('orders', 'a-1', 'T', '3') \g /dev/null
SELECT is((SELECT checkpoint FROM event_store.read_batch('orders')), (SELECT min(position) FROM orders), 'a batch ends before it');
SELECT is((SELECT format('%s %s', checkpoint = (SELECT position FROM orders WHERE version = 2), length(events -> 0 ->> 'data'))
             FROM event_store.read_batch('orders', after => (SELECT min(position) FROM orders))), 't 200000000', 'it is a batch of its own');
SELECT is((SELECT events -> 0 ->> 'version' FROM event_store.read_batch('orders', after => (SELECT position FROM orders WHERE version = 2))), '3',
    'and the feed goes on after it');
SELECT * FROM finish();
