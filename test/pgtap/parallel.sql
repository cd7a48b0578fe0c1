-- Appends and feeds in a parallel worker, where only a function that is labelled
-- wrongly can bring them: refused, and nothing half done.
SELECT plan(4);
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'a-1', 'T', '1') \g /dev/null
CREATE FUNCTION append_labelled_safe() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS
$$ BEGIN RETURN (SELECT last_version FROM event_store.append('orders', 'a-1', 'T', '2')); END $$;
CREATE FUNCTION feed_labelled_safe() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS
$$ BEGIN RETURN (SELECT count(*) FROM event_store.read_all('orders')); END $$;
SET force_parallel_mode = on;
SELECT throws_ok('SELECT append_labelled_safe() FROM orders', '25000', 'cannot execute append during a parallel operation',
    'an append in a parallel worker is refused');
SELECT throws_ok('SELECT feed_labelled_safe() FROM orders', '25000', 'cannot execute a feed during a parallel operation',
    'a feed in a parallel worker is refused');
SELECT is((SELECT count(*) FROM event_store.append('orders', 'a-1', 'T', '2')), 1::bigint,
    'append() itself keeps the planner from using workers');
RESET force_parallel_mode;
SELECT is(event_store.stream_version('orders', 'a-1'), 2::bigint, 'and nothing else was appended');
SELECT * FROM finish();
