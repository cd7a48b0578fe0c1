-- guard() by a superuser, on another role's event table that has lost its
-- sequence: the new one is the owner's.
SELECT plan(5);
CREATE ROLE es_mend_owner;
GRANT CREATE ON SCHEMA public TO es_mend_owner;
SET ROLE es_mend_owner;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'a-1', 'T', '1') \g /dev/null
RESET ROLE;
ALTER EVENT TRIGGER event_store_check_sequence DISABLE;
DROP SEQUENCE orders_position_seq;
ALTER EVENT TRIGGER event_store_check_sequence ENABLE ALWAYS;
SET ROLE es_mend_owner;
SELECT throws_ok($$ SELECT event_store.append('orders', 'a-1', 'T', '2') $$, 'SE005', NULL, 'without its sequence it takes no appends');
RESET ROLE;
SELECT results_eq($$ SELECT event_store.guard('orders') $$,
    ARRAY['created sequence public.orders_position_seq', 'set sequence public.orders_position_seq to 1'],
    'a superuser mends it');
SELECT is((SELECT relowner::regrole::text FROM pg_class WHERE relname = 'orders_position_seq'), 'es_mend_owner', 'the sequence is the owner''s');
SET ROLE es_mend_owner;
SELECT is((SELECT last_position FROM event_store.append('orders', 'a-1', 'T', '2')), 2::bigint, 'the owner appends again');
RESET ROLE;
SELECT is(event_store.check_guards('orders'), NULL, 'all is in order');
DROP TABLE orders;
REVOKE CREATE ON SCHEMA public FROM es_mend_owner;
DROP ROLE es_mend_owner;
SELECT * FROM finish();
