# Folding a stream of 1,000 events.
fresh event_store@load
PGDATABASE=event_store_load psql -XqAt -v ON_ERROR_STOP=1 -v rounds="$rounds" -f "$here/load.sql" | grep -E '^[1-5] ' > "$PRIVATE/loads"

# load_row NUMBER WORK TITLE TARGET
load_row() {
    sed -n "s/^$1 //p" "$PRIVATE/loads" > "$PRIVATE/of_load"
    FILE=$PRIVATE/of_load versus "$2" /s ours other "$3" "$4"
}
load_row 1 'load of 1,000 events, SQL reducer' 'PL/pgSQL loop with it' '>= 1.0'
load_row 2 'load of 1,000 events, PL/pgSQL reducer' 'PL/pgSQL loop with it' '>= 1.0'
load_row 3 'load of 1,000 events, merge()' 'the loop with the SQL reducer' '>= 5.0'
load_row 4 'load of 1,000 events, merge()' 'the loop with the PL/pgSQL reducer' '>= 5.0'
load_row 5 'load with a snapshot at 990' 'without' '>= 20.0'
drop event_store@load
