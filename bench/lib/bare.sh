# shellcheck shell=bash
#
# Another server, on which nothing is preloaded; for the parts that ask what the
# worker costs.
bare() { at bare postgres "$@"; }

if [ ! -e "$PRIVATE/bare.log" ]; then
    server_start bare "${settings[@]}"
    make_template event_store > "$PRIVATE/out" 2>&1 || { cat "$PRIVATE/out" >&2; exit 1; }
    PGHOST=$PRIVATE/sockets/bench
fi
