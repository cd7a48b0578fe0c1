# How soon others know of a commit: by a notification, by wait_for_events(); and by
# looking every 5 ms, as the feeds of the others have to be read.

# delivered SIDE ROUND: quantiles of milliseconds; an append every 20 ms or so
delivered() {
    local _ count log=$PRIVATE/tmp/pgbench_log arrived=$PRIVATE/tmp/arrived
    rm -f "$log".*
    follow "$1" 1 "$arrived"
    read -r _ count < <(drive "$1" "$here/peers/$1/append.sql" 1 "$seconds" "$2" --rate=50 --log --log-prefix="$log")
    acknowledged "$1" "$count"
    finish_follow "$count"
    expect "a reader of $1 gets $count events, and not $fewest" "$fewest" = "$count"
    # The log has the time of each commit.
    paste <(awk '{ printf "%d.%06d\n", $5, $6 }' "$log".*) "$arrived" |
        awk '{ late = $2 - $1; printf "0 %d %d 0 0 0\n", NR, (late > 0 ? late * 1000000 : 0) }' > "$arrived.late"
    figures quantiles "$arrived.late"
}

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

spread=0    # Message DB has a feed for each category
here_sides=$(having feed.sql)
fresh $here_sides
race_sides "$here_sides" delivered
sides 'from commit to a reader who looks every 5 ms, 50 %' ms
FILE=$results.3 sides 'from commit to a reader who looks every 5 ms, 99 %' ms
check $here_sides
drop $here_sides
spread=1
