# Many events a call, one client; the plain table gets them by COPY BINARY.
batch() {
    local speed count
    read -r speed count < <(PGDATABASE=$1 "$PRIVATE/batch" "$here/peers/$1/batch.sql" "$3" "$seconds" "$2")
    expect "$1: batches" -n "$count"
    acknowledged "$1" "$count"
    echo "$speed"
}

here_sides=$(having batch.sql)
for n in ${full:+10} 100 1000; do
    fresh $here_sides
    race_sides "$here_sides" batch "$n"
    sides "append of $n events a call" events/s "$([ "$n" != 1000 ] || echo plain=1.2)"
    check $here_sides
    drop $here_sides
done
