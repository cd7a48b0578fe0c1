# Eight clients append to random streams of tables that have so many events
# already.
here_sides=
for n in $sizes; do
    for side in event_store plain; do
        fresh "$side@$n"
        fill "$side@$n" order "$n" $((n / 100))
        here_sides+="$side@$n "
    done
done
sql -c CHECKPOINT

# Each to streams of its own table.
append_random() {
    streams=$((${1#*@} / 100)) tps "$1" append_random 8 "$2"
}
race_sides "$here_sides" append_random
cp "$results" "$PRIVATE/by_size"
first=${sizes%% *}
last=${sizes##* }
for n in $sizes; do
    grep "@$n " "$PRIVATE/by_size" | sed "s/@$n / /" > "$PRIVATE/of_size"
    FILE=$PRIVATE/of_size sides "append, 8 clients, $n events in the table" /s
done
# No more than 1.2 times what it is for the plain table.
if [ "$first" != "$last" ]; then
    awk -v first="$first" -v last="$last" '
        { split($1, name, "@"); speed[name[1], name[2], $2] = $3; rounds[$2] = 1 }
        END {
            n = split("event_store plain", sides, " ")
            for (r in rounds)
                for (i = 1; i <= n; i++)
                    print sides[i], r, speed[sides[i], first, r] / speed[sides[i], last, r]
        }' "$PRIVATE/by_size" > "$PRIVATE/of_size"
    FILE=$PRIVATE/of_size versus "cost of an append with $last events against $first" times event_store plain 'plain table' '>= 0.83'
fi
check loose $here_sides
drop $here_sides
