# Projections from start to end, against the same by hand; and what they cost
# those who append.

# project NAME: events a second
project() {
    sql -c 'TRUNCATE totals, by_function, digests' -c CHECKPOINT
    sql -c "SELECT event_store.reset_projection('$1')"
    speed_of catch_up "$1"
    sql -c "SELECT event_store.pause_projection('$1')"
}

# catch_up NAME: in short waits, since whoever waits has a snapshot
catch_up() {
    sql -c "SELECT event_store.resume_projection('$1')"
    until [ "$(value "SELECT event_store.wait_for_projection('$1', NULL, '100 ms')")" = t ]; do :; done
}

# hand_batches, hand_at_once ROUND: of the same by hand
hand_batches() { by_hand 'CALL project_by_hand(50000)'; }
hand_at_once() { by_hand "INSERT INTO by_hand SELECT stream, count(*), sum((data->>'amount')::bigint) FROM ev GROUP BY stream"; }
by_hand() {
    sql -c 'TRUNCATE by_hand, checkpoint' -c 'INSERT INTO checkpoint VALUES (0)' -c CHECKPOINT
    PGOPTIONS='-c synchronous_commit=off' speed_of sql -c "$1"
}

# speed_of COMMAND…: events a second, where it handles them all
speed_of() {
    local start
    start=$(date +%s%N)
    "$@"
    echo "$project_events $start $(date +%s%N)" | awk '{ print $1 / ($3 - $2) * 1e9 }'
}

# lags ROUND: milliseconds until the projection has handled an append
lags() { psql -Xq -v ON_ERROR_STOP=1 -c 'CALL lags(100)' 2>&1 | sed -n 's/^NOTICE:  //p'; }

# memory: KB of the projectors' own
memory() { value "SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_store projector'" | xargs -I{} awk '/^RssAnon/ { print $2 }' /proc/{}/status | sort -n | tail -n 1; }

same_as_by_hand() { expect 'both have the same' "$(value 'SELECT count(*) FROM (TABLE totals EXCEPT TABLE by_hand) d')" = 0; }

# Events over streams, in a database of its own.
# projections NAME EVENTS STREAMS BATCH
projections() {
    fresh "event_store@$1"
    PGDATABASE=event_store_$1 sql -v events="$2" -v streams="$3" -v batch="$4" -f "$here/project.sql"
}

projections many "$project_events" 100000 50000
PGDATABASE=event_store_many
race ours 'project totals' hand hand_batches
versus "SQL projection of $project_events events, 100,000 streams" events/s ours hand 'the same batches by hand' '>= 0.8'
same_as_by_hand
PGDATABASE=postgres
drop event_store@many

if [ "$full" ]; then
    few_events=$project_events
    project_events=${PROJECT_EVENTS:-1000000}
fi
projections few "$project_events" 1000 100000
PGDATABASE=event_store_few
race ours 'project totals' hand hand_batches at_once hand_at_once
versus "SQL projection of $project_events events, 1,000 streams" events/s ours hand 'the same batches by hand' '>= 0.8'
versus "SQL projection of $project_events events, 1,000 streams, at once" events/s ours at_once 'one INSERT … SELECT … GROUP BY' '>= 0.5'
same_as_by_hand
PGDATABASE=postgres
drop event_store@few
[ ! "$full" ] || project_events=$few_events

projections projected "$project_events" 1000 100000
PGDATABASE=event_store_projected
before=$(memory)
race function 'project by_function' one 'project one' two 'project two'
versus 'function in PL/pgSQL, two partitions, much to compute' events/s two one 'one partition' '>= 1.5'
summary 'function in PL/pgSQL, an upsert per event' events/s function '>= 30000'
single 'memory of the projector, after all that more by' KB $(($(memory) - before)) '<= 20000'
PGDATABASE=postgres

# What clients append here has no amount.
told_and_projected() {
    local speed
    PGDATABASE=event_store_projected beside event_store_projected 1 0 tps_of_projected "$1" > /dev/null
    echo "$speed"
}
tps_of_projected() { speed=$(tps event_store@projected append 8 "$1"); }

fresh event_store@without
PGDATABASE=event_store_projected sql -c "SELECT event_store.resume_projection('totals')"
race with 'tps event_store@projected append 8' with_listener told_and_projected without 'tps event_store@without append 8'
versus 'append, 8 clients, with an SQL projection' /s with without 'without' '>= 0.8'
versus 'append, 8 clients, with an SQL projection and a listener' /s with_listener without 'without' '>= 0.8'
check event_store@without
PGDATABASE=event_store_projected
expect 'it keeps up' "$(value "SELECT event_store.wait_for_projection('totals', NULL, '5 s')")" = t
race calm lags
PGDATABASE=postgres
summary 'from the commit of an append until a projection has handled it' ms calm '<= 50'
drop event_store@without event_store@projected
