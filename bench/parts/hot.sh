# Everybody appends to one stream, with the version that he has read, until it
# succeeds.  The speed is that of events.
hot() {
    local speed count before after
    before=$(PGDATABASE=$1 value 'SELECT count(*) FROM bench_events')
    read -r speed count < <(drive "$1" "$here/hot.sql" "$2" "$seconds" "$3")
    expect "$1: hot" -n "$count"
    after=$(PGDATABASE=$1 value 'SELECT count(*) FROM bench_events')
    expect "$1 has appended something" "$after" -gt "$before"
    expect "$1 has not appended more than was tried" $((after - before)) -le "$count"
    acknowledged "$1" $((after - before))
    awk -v speed="$speed" -v count="$count" -v events=$((after - before)) 'BEGIN { print speed * events / count, count / events }'
}

here_sides=$(having append_expected.sql)
for n in 8 32; do
    fresh $here_sides
    race_sides "$here_sides" hot "$n"
    sides "append to one stream, retried, $n clients" /s
    FILE=$results.2 sides "append to one stream, $n clients: attempts per event" attempts
    check $here_sides
    drop $here_sides
done
