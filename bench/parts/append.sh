# Appends of one event, each client to streams of its own, in a category of its
# own; without and with an expected version.
for n in $clients; do
    for work in append ${full:+append_expected}; do
        [ $work = append ] && what='append' || what='append, version checked'
        here_sides=$(having $work.sql)
        fresh $here_sides
        if [ "$n" = 8 ] && [ $work = append ]; then
            race_sides "$here_sides" tps_and_times $work "$n"
        else
            race_sides "$here_sides" tps $work "$n"
        fi
        sides "$what, $(clients_text "$n")" /s "$(case "$n" in 1 | 8 | 32) echo plain=1.0 ;; esac)"
        if [ "$n" = 8 ] && [ $work = append ]; then
            i=2
            for p in 50 95 99 99.9; do
                FILE=$results.$i sides "append, 8 clients: time, $p %" ms
                i=$((i + 1))
            done
        fi
        expect 'the worker notifies' "$(notifications event_store)" -ge "$rounds"
        check $here_sides
        drop $here_sides
    done
done
