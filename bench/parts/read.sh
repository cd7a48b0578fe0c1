# Streams, one client.
here_sides=$(having stream.sql)
fresh $here_sides
for side in $here_sides; do
    fill "$side" s10 10000 1000
    fill "$side" s100 50000 500
    fill "$side" s1000 100000 100
done
check $here_sides
for length in ${full:+10} 100 ${full:+1000}; do
    case $length in 10) streams=1000 ;; 100) streams=500 ;; *) streams=100 ;; esac
    race_sides "$here_sides" tps stream 1
    sides "read of a stream of $length events" /s "$([ $length != 100 ] || echo plain=0.9)"
done
drop $here_sides
streams=100
