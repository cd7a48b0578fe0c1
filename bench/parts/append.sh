# Appends of one event, each client to streams of its own, in a category of its
# own; without and with an expected version.  The plain table is also asked for what
# append() answers: an INSERT … RETURNING.
for n in $clients; do
    for work in append ${full:+append_expected}; do
        here_sides=$(having $work.sql)
        measure=tps
        returning=
        what='append, version checked'
        if [ $work = append ]; then
            [ "$n" != 8 ] || measure=tps_and_more
            returning=plain@returning
            what=append
        fi
        fresh $here_sides $returning
        sides_and_more=()
        for side in $here_sides; do sides_and_more+=("$side" "$measure $side $work $n"); done
        [ ! "$returning" ] || sides_and_more+=(returning "tps $returning append_returning $n")
        race "${sides_and_more[@]}"
        what+=", $(clients_text "$n")"
        grep -v '^returning ' "$results" > "$PRIVATE/of_append"
        FILE=$PRIVATE/of_append sides "$what" /s "$(case "$n" in 1 | 8 | 32) echo plain=1.0 ;; esac)"
        [ ! "$returning" ] || versus "$what" /s event_store returning 'plain table, INSERT … RETURNING'
        if [ $measure = tps_and_more ]; then
            i=2
            for p in 50 95 99 99.9; do
                FILE=$results.$i sides "$what: time, $p %" ms
                i=$((i + 1))
            done
            FILE=$results.$i sides "$what: WAL" bytes
        fi
        expect 'the worker notifies' "$(notifications event_store)" -ge "$rounds"
        check $here_sides $returning
        drop $here_sides $returning
    done
done
