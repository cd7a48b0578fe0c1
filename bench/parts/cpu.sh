# Where no flush covers what an append costs.
sql -c 'ALTER SYSTEM SET fsync = off' -c 'SELECT pg_reload_conf()'
fresh event_store plain
race_sides 'event_store plain' tps append 1
sides 'append, 1 client, fsync = off' /s
streams=1
race_sides 'event_store plain' tps append 1
streams=100
sides 'append to one long stream, 1 client, fsync = off' /s
check event_store plain
drop event_store plain
sql -c 'ALTER SYSTEM RESET fsync' -c 'SELECT pg_reload_conf()'
