# The same where all streams are of one category.
spread=0
for n in ${full:+8} 32; do
    here_sides=$(having append.sql)
    fresh $here_sides
    race_sides "$here_sides" tps append "$n"
    if [ "$n" = 32 ]; then targets='plain=1.0 message_db=5.0 emmett=2.0'; else targets=; fi
    sides "append in one category, $n clients" /s $targets
    expect 'the worker notifies' "$(notifications event_store)" -ge "$rounds"
    check $here_sides
    drop $here_sides
done
spread=1
