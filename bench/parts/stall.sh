# How many events a second a reader gets while four clients append, and a
# transaction that has written something idles: nowhere, in another database, in
# this one.
stall() {
    local speed count delivered idler=
    if [ "$2" != none ]; then
        fifo=$PRIVATE/tmp/idle_$1
        rm -f "$fifo"
        mkfifo "$fifo"
        PGDATABASE=$([ "$2" = here ] && echo "$1" || echo postgres) PGAPPNAME=idler psql -Xq -v ON_ERROR_STOP=1 < "$fifo" > /dev/null &
        idler=$!
        exec 9> "$fifo"
        echo 'BEGIN; SELECT pg_current_xact_id();' >&9
        until [ "$(value "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idler' AND state = 'idle in transaction' AND backend_xid IS NOT NULL")" = 1 ]; do
            kill -0 $idler
        done
    fi
    follow "$1" 1 9>&-
    read -r speed count < <(drive "$1" "$here/peers/$1/append.sql" 4 "$seconds" "$3" 9>&-)
    echo count >&"${FOLLOW[1]}"
    read -r delivered <&"${FOLLOW[0]}"
    if [ "$idler" ]; then
        echo 'COMMIT;' >&9
        exec 9>&-
        wait $idler
    fi
    finish_follow "$count"
    expect "a reader of $1 gets something" "$most" -gt 0
    [ "$1" != event_store ] || expect "the reader gets $count events, and not $fewest" "$fewest" = "$count"
    acknowledged "$1" "$count"
    awk -v n="$delivered" -v seconds="$seconds" 'BEGIN { print n / seconds }'
}

spread=0
here_sides=$(having feed.sql)
fresh $here_sides
for where in none elsewhere here; do
    race_sides "$here_sides" stall $where
    case $where in
        none) what='delivered to a reader, 4 clients append' ;;
        elsewhere) what='delivered while a transaction idles in another database' ;;
        here) what='delivered while a transaction idles in this database' ;;
    esac
    sides "$what" events/s
done
check $here_sides
drop $here_sides
spread=1
