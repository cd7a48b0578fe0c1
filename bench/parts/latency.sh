# How soon others know of a commit: by a notification, by wait_for_events().
# Peers are polled; half the time between two looks is what they have.

# delays notify|wait GAP ROUND: milliseconds, of each event
delays() { PGDATABASE=event_store_delays "$PRIVATE/latency" "$1" "$seconds" "$2"; }

# loaded COMMAND… ROUND: runs it with 32 clients appending beside it.
loaded() {
    local load
    drive event_store_delays "$here/peers/event_store/append.sql" 32 "$((seconds + 1))" "${@: -1}" > /dev/null &
    load=$!
    until [ "$(value "SELECT count(*) = 32 FROM pg_stat_activity WHERE application_name = 'pgbench'")" = t ]; do
        kill -0 "$load"
    done
    "$@"
    wait "$load"
}

fresh event_store@delays
if [ "$full" ]; then
    race notify-20 'delays notify 20' notify-1 'delays notify 1' notify-load 'loaded delays notify 20' \
        wait-20 'delays wait 20' wait-1 'delays wait 1' wait-load 'loaded delays wait 20'
else
    race notify-20 'delays notify 20' wait-20 'delays wait 20'
fi
summary 'from commit to notification, an append every 20 ms' ms notify-20 '<= 7'
summary 'from commit to the return of wait_for_events, an append every 20 ms' ms wait-20 '<= 2'
if [ "$full" ]; then
    summary 'notification, an append every 1 ms' ms notify-1 '<= 7'
    summary 'notification, beside 32 clients that append' ms notify-load
    summary 'wait_for_events, an append every 1 ms' ms wait-1 '<= 2'
    summary 'wait_for_events, beside 32 clients that append' ms wait-load
fi
drop event_store@delays
