# From Node: Emmett's own client against node-postgres.
node_appends() {
    local speed count
    read -r speed count < <(PGDATABASE=$1 NODE_PATH=$PRIVATE/peers/emmett/node_modules node "$here/peers/emmett/client.js" "$1" "$3" "$seconds" "$2")
    expect "$1: the client has counted" -n "$count"
    acknowledged "$1" "$count"
    echo "$speed"
}

if [ -e "$PRIVATE/sides/emmett" ]; then
    for n in 1 8; do
        fresh event_store emmett
        race_sides 'event_store emmett' node_appends $n
        sides "append from Node, version checked, $(clients_text $n)" /s
        check event_store emmett
        drop event_store emmett
    done
else
    echo 'no Emmett: nothing from Node' >&2
fi
