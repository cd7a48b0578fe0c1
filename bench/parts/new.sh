# Each event begins a stream.
here_sides=$(having append_new.sql)
for n in 1 8; do
    fresh $here_sides
    race_sides "$here_sides" tps append_new "$n"
    sides "append to a new stream, $(clients_text "$n")" /s
    check $here_sides
    drop $here_sides
done
