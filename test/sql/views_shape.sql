-- What \d shows of an event table, and the columns of the views and types.

CREATE EXTENSION event_store;
SELECT event_store.create_event_table('parcels');

\d parcels
\d parcels_position_seq
\d event_store.event_tables
\d event_store.mark_holders
\d event_store.event
\d event_store.append_result
\d event_store.snapshots
\d event_store.aggregates

DROP TABLE parcels;
DROP EXTENSION event_store;
