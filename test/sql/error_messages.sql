-- The errors as a user sees them, with DETAIL and HINT.  SE006 to SE008 belong
-- to what is not built yet.

CREATE EXTENSION event_store;
SELECT event_store.create_event_table('accounts');
SELECT count(*) FROM event_store.append_batch('accounts', 'account-1', ARRAY['Opened', 'Paid'], ARRAY['{}', '{}']::jsonb[],
    event_ids => ARRAY['00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002']::uuid[]);

CREATE FUNCTION sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text; tab text; sch text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, sch = SCHEMA_NAME, tab = TABLE_NAME;
	RETURN concat_ws(' ', state, nullif(concat_ws('.', nullif(sch, ''), nullif(tab, '')), ''));
END $$;

-- SE001 wrong_expected_version
SELECT event_store.append('accounts', 'account-1', 'Paid', '{}', expected_version => 1);
SELECT event_store.append('accounts', 'account-1', 'Opened', '{}', expected_version => 0);
SELECT event_store.append('accounts', 'account-9', 'Paid', '{}', expected_version => 3);
SELECT event_store.append('accounts', 'account-9', 'Paid', '{}', expected_version => event_store.stream_exists());
SELECT event_store.append_streams('accounts',
    '[{"stream": "account-1", "expected_version": 1, "events": [{"type": "Paid", "data": {}}]},
      {"stream": "account-2", "expected_version": -4, "events": [{"type": "Paid", "data": {}}]}]',
    checks => '[{"stream": "account-3", "expected_version": 7}]');
INSERT INTO accounts (stream, version, type, data) VALUES ('account-1', 5, 'Paid', '{}');

-- SE002 append_only_violation
UPDATE accounts SET data = '{}' WHERE position = 1;
DELETE FROM accounts WHERE false;
TRUNCATE accounts;
ALTER TABLE accounts ALTER COLUMN correlation_id TYPE uuid USING NULL;

-- SE003 event_id_conflict
SELECT event_store.append('accounts', 'account-1', 'Closed', '{}', event_id => '00000000-0000-7000-8000-000000000001');
SELECT event_store.append_batch('accounts', 'account-1', ARRAY['Paid', 'Paid'], ARRAY['{}', '{}']::jsonb[],
    event_ids => ARRAY['00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000003']::uuid[]);
SELECT event_store.append_batch('accounts', 'account-1', ARRAY['Paid', 'Paid'], ARRAY['{}', '{}']::jsonb[],
    event_ids => ARRAY['00000000-0000-7000-8000-000000000004', '00000000-0000-7000-8000-000000000004']::uuid[]);

-- SE004 not_an_event_table
CREATE TABLE ordinary (n int);
CREATE VIEW accounts_view AS SELECT * FROM accounts;
SELECT event_store.append('ordinary', 's', 'T', '{}');
SELECT event_store.read_stream('accounts_view', 's');
SELECT event_store.append(NULL, 's', 'T', '{}');

-- SE005 unguarded_event_table
ALTER TABLE accounts DISABLE TRIGGER event_store_append_only;
DROP TRIGGER zzz_event_store_append ON accounts;
SELECT setval('accounts_position_seq', 1);
SELECT event_store.append('accounts', 'account-1', 'Paid', '{}');
SELECT * FROM event_store.guard('accounts');

-- SE009 checkpoint_diverged
SELECT event_store.read_all('accounts', after => 2, after_event_id => '00000000-0000-7000-8000-000000000001');
SELECT event_store.read_all('accounts', after => 0, after_event_id => '00000000-0000-7000-8000-000000000001');

-- their SQLSTATEs, and the table that they name
SELECT sqlstate_of(statement), statement FROM (VALUES
    ($$SELECT event_store.append('accounts', 'account-1', 'T', '{}', expected_version => 1)$$),
    ($$DELETE FROM accounts$$),
    ($$SELECT event_store.append('accounts', 's', 'T', '{}', event_id => '00000000-0000-7000-8000-000000000001')$$),
    ($$SELECT event_store.append('ordinary', 's', 'T', '{}')$$),
    ($$ALTER TABLE accounts DISABLE TRIGGER ALL$$),
    ($$SELECT event_store.read_all('accounts', 2, after_event_id => '00000000-0000-7000-8000-000000000001')$$)) AS v (statement);

-- bad arguments
SELECT event_store.append('accounts', 's', 'T', '{}', expected_version => -1);
SELECT event_store.append('accounts', 's', 'T', '{}', expected_version => -2);
SELECT event_store.append('accounts', NULL, 'T', '{}');
SELECT event_store.append('accounts', '', 'T', '{}');
SELECT event_store.append('accounts', repeat('s', 513), 'T', '{}');
SELECT event_store.append('accounts', 's', repeat('t', 256), '{}');
SELECT event_store.append('accounts', 's', 'T', NULL);
SELECT event_store.append_batch('accounts', 's', '{}', '{}');
SELECT event_store.append_batch('accounts', 's', ARRAY['A', 'B'], ARRAY['{}']::jsonb[]);
SELECT event_store.append_batch('accounts', 's', ARRAY['A', NULL], ARRAY['{}', '{}']::jsonb[]);
SELECT event_store.append_json('accounts', 's', '{"type": "A", "data": {}}');
SELECT event_store.append_json('accounts', 's', '"[{\"type\": \"A\", \"data\": {}}]"');
SELECT event_store.append_json('accounts', 's', '[{"type": "A", "data": {}}, {"type": "A", "date": {}}]');
SELECT event_store.append_json('accounts', 's', '[{"type": "A"}]');
INSERT INTO accounts (position, stream, type, data) VALUES (1, 's', 'T', '{}');
SELECT event_store.read_stream('accounts', 's', direction => 'up');

-- aggregates, and errors in their reducers
CREATE FUNCTION halve(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql AS
'BEGIN RETURN to_jsonb(state::int / (event.version - 2)); END';
SELECT event_store.create_aggregate('account', 'halve(jsonb, event_store.event)', '100');
ALTER FUNCTION halve IMMUTABLE;
SELECT event_store.create_aggregate('account', 'halve(jsonb, event_store.event)', '100');
SELECT event_store.create_aggregate('account', 'halve(jsonb, event_store.event)', '100');
SELECT event_store.create_aggregate('account', or_replace => true);
SELECT event_store.load('accounts', 'account-1', 'Account');
UPDATE event_store.aggregates SET reducer = 'nowhere.f(jsonb, event_store.event)' WHERE name = 'account';
SELECT event_store.load('accounts', 'account-1', 'account');
UPDATE event_store.aggregates SET reducer = 'public.halve(jsonb, event_store.event)' WHERE name = 'account';
SELECT version, state FROM event_store.load('accounts', 'account-1', 'account', at_version => 1);
SELECT event_store.save_snapshot('accounts', 'account-1', 1, '"one"', 'account');
SELECT * FROM event_store.load('accounts', 'account-1', 'account', as_of => '2000-01-01');
INSERT INTO event_store.snapshots VALUES ('accounts', 'account-1', 'account', 1, 8, '"eight"');
SELECT * FROM event_store.load('accounts', 'account-1', 'account', at_version => 1);
SELECT version, state FROM event_store.load_snapshot('accounts', 'account-1', 'account');
SELECT event_store.take_snapshots('accounts', 'account');
SELECT event_store.drop_aggregate('account');
SELECT event_store.drop_aggregate('account');

-- an extra column that appends cannot fill
SELECT event_store.create_event_table('strict');
ALTER TABLE strict ADD COLUMN tenant text NOT NULL;
SELECT event_store.append('strict', 's', 'T', '{}');

-- other refusals
\set SHOW_CONTEXT never
SELECT event_store.create_event_table('accounts');
\set SHOW_CONTEXT errors
SELECT event_store.create_event_table('ordinary', if_not_exists => true);
SELECT event_store.create_event_table('pg_temp.accounts');
SELECT event_store.make_append_only('accounts_view');
SELECT event_store.drop_event_table('ordinary');
SELECT event_store.save_snapshot('accounts', 'account-1', 3, '{}');
BEGIN READ ONLY;
SELECT event_store.append('accounts', 's', 'T', '{}');
ROLLBACK;

-- nothing of all that has been stored
SELECT position, stream, version, type FROM accounts ORDER BY position;

DROP VIEW accounts_view;
DROP TABLE accounts, ordinary, strict;
DROP FUNCTION sqlstate_of, halve;
DROP EXTENSION event_store;
