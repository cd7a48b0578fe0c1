# Eight clients append while ten readers follow the feed.  Of ours, each must get
# every event, once; how many others miss is a result.
heads() {
    local speed count
    follow "$1" 10
    read -r speed count < <(drive "$1" "$here/peers/$1/append.sql" 8 "$seconds" "$2")
    acknowledged "$1" "$count"
    finish_follow "$count"
    expect "readers of $1 get something" "$most" -gt 0
    [ "$1" != event_store ] || expect "each reader gets $count events, and not $fewest to $most" "$fewest $most" = "$count $count"
    echo "$speed $((count > fewest ? count - fewest : 0)) $count"
}

spread=0    # Message DB has a feed for each category
here_sides=$(having feed.sql)
fresh $here_sides
race_sides "$here_sides" heads
sides 'append, 8 clients, beside 10 readers' /s
for side in $here_sides; do
    read -r lost all < <(paste "$results.2" "$results.3" | awk -v side="$side" '$1 == side { lost += $3; all += $6 } END { print lost, all }')
    title=$(head -n 1 "$here/peers/$side/about")
    single "events that a reader of $title missed, of $all" events "$lost" "$([ "$side" != event_store ] || echo '<= 0')"
done
check $here_sides
drop $here_sides
spread=1
