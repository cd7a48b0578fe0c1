-- DROP EXTENSION is refused while an event table or append-only table needs it.

CREATE EXTENSION event_store;
SELECT event_store.create_event_table('parcels');
CREATE TABLE audit (what text);
SELECT event_store.make_append_only('audit');
SELECT count(*) FROM event_store.append('parcels', 'parcel-1', 'Sent', '{}');

DROP EXTENSION event_store;

-- with CASCADE the tables stay, as ordinary ones
\set VERBOSITY terse
DROP EXTENSION event_store CASCADE;
\set VERBOSITY default
SELECT tgname FROM pg_trigger WHERE tgrelid IN ('parcels'::regclass, 'audit'::regclass);
SELECT evtname FROM pg_event_trigger;
SELECT position, stream, version, type FROM parcels;

-- it can be had again, and the tables made what they were
CREATE EXTENSION event_store;
CREATE TRIGGER zzz_event_store_append BEFORE INSERT ON parcels
    FOR EACH ROW EXECUTE FUNCTION event_store._guard_insert();
SELECT * FROM event_store.guard('parcels');
SELECT event_store.check_guards('parcels');
SELECT first_version, first_position FROM event_store.append('parcels', 'parcel-1', 'Arrived', '{}');

-- without such tables nothing is in the way
DROP TABLE parcels, audit;
DROP EXTENSION event_store;
