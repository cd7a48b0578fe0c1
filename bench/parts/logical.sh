# What wal_level = logical costs.
if [ ! -e "$PRIVATE/logical.log" ]; then
    server_start logical "${settings[@]}" "${preloaded[@]}" 'wal_level = logical'
    for side in event_store plain; do
        make_template $side > "$PRIVATE/out" 2>&1 || { cat "$PRIVATE/out" >&2; exit 1; }
    done
    PGHOST=$PRIVATE/sockets/bench
fi
logical() { at logical postgres "$@"; }

fresh event_store plain
logical fresh event_store plain
race event_store 'logical tps event_store append 8' plain 'logical tps plain append 8' \
    replica 'tps event_store append 8' plain_replica 'tps plain append 8'
grep -E '^(event_store|plain) ' "$results" > "$PRIVATE/of_logical"
FILE=$PRIVATE/of_logical sides 'append, 8 clients, wal_level = logical' /s plain=1.0
versus 'append, 8 clients, what wal_level = logical costs' /s event_store replica 'wal_level = replica'
versus 'the same, plain table' /s plain plain_replica 'wal_level = replica'
check event_store plain
logical check event_store plain
drop event_store plain
logical drop event_store plain
