# The feed from its start to its end, 1,000 events at a time, for 10 seconds at
# most; and how much room the events take.
read_feed() {
    local speed count
    read -r speed count < <(PGDATABASE=$1 "$PRIVATE/feed" read "$here/peers/$1/feed.sql" "$2" "$feed_events" 10)
    expect "$1: the feed" -n "$count"
    if [ "$count" != "$feed_events" ]; then
        expect "$1: it ended after $count events" "$(awk -v n="$count" -v speed="$speed" 'BEGIN { print (n < '"$feed_events"' && n / speed > 9.9) }')" = 1
    fi
    echo "$speed"
}

here_sides=$(having feed.sql)
fresh $here_sides
rm -f "$PRIVATE/sizes"
for side in $here_sides; do
    before=$(PGDATABASE=$side value 'SELECT bytes FROM bench_size')
    fill "$side" order0 "$feed_events" 1000
    after=$(PGDATABASE=$side value 'SELECT bytes FROM bench_size')
    echo "$side 1 $(((after - before) / feed_events))" >> "$PRIVATE/sizes"
done
check $here_sides
race_sides "$here_sides" read_feed
sides "feed of $feed_events events, 1,000 at a time" events/s plain=0.9
FILE=$PRIVATE/sizes sides 'room for an event, indexes included' bytes
drop $here_sides
