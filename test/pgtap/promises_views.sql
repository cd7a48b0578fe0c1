-- mark_holders, for a role that pg_stat_activity hides things from.
SET client_min_messages = warning;
SELECT plan(4);

CREATE EXTENSION dblink;
CREATE ROLE es_views_nobody;
CREATE ROLE es_views_monitor;
GRANT pg_read_all_stats TO es_views_monitor;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT dblink_connect('writer', format('host=%s port=%s dbname=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
    current_setting('port'), current_database(), session_user)) \g /dev/null
SELECT dblink_exec('writer', 'BEGIN') \g /dev/null
SELECT * FROM dblink('writer', $$ SELECT last_version FROM event_store.append('orders', 'a-1', 'T', '{}') $$) AS x(v bigint) \g /dev/null
SET ROLE es_views_monitor;
SELECT is((SELECT format('%s %s %s %s', position, pid IS NOT NULL, since IS NOT NULL, state) FROM event_store.mark_holders),
    '0 t t idle in transaction', 'who may read all statistics sees since when, and in which state');
SET ROLE es_views_nobody;
SELECT is((SELECT format('%s %s %s %s', position, pid IS NOT NULL, since IS NULL, state IS NULL) FROM event_store.mark_holders),
    '0 t t t', 'another role sees who holds the mark, but not what pg_stat_activity hides');
SELECT is((SELECT count(*) FROM pg_stat_activity a JOIN event_store.mark_holders m USING (pid) WHERE a.state IS NULL AND a.xact_start IS NULL),
    1::bigint, 'which are these columns');
RESET ROLE;
SELECT dblink_exec('writer', 'COMMIT') \g /dev/null
SELECT is_empty('SELECT * FROM event_store.mark_holders', 'after the commit nobody holds it');
SELECT dblink_disconnect('writer') \g /dev/null

DROP OWNED BY es_views_monitor;
REVOKE pg_read_all_stats FROM es_views_monitor;
DROP ROLE es_views_nobody, es_views_monitor;
SELECT * FROM finish();
