# What it costs 32 writers that others are told.  The worker of a database goes by
# the database's setting.
. "$here/lib/bare.sh"
names='notify_auto notify_10 notify_waiters notify_off notify_transaction'
for name in $names; do
    fresh event_store@$name
    case $name in
        notify_off | notify_transaction) sql -c "ALTER DATABASE event_store_$name SET event_store.notify = ${name#*_}" ;;
    esac
done
bare fresh event_store
bare sql -c 'ALTER DATABASE event_store SET event_store.notify = off'

# told NAME LISTENERS WAITERS ROUND: the speed, and not what the listeners say
told() {
    local speed
    beside "event_store_$1" "$2" "$3" tps_of_told "event_store@$1" "$4" > /dev/null
    echo "$speed"
}
tps_of_told() { speed=$(tps "$1" append 32 "$2"); }

race nothing 'bare tps event_store append 32' \
    worker 'tps event_store@notify_off append 32' \
    auto 'told notify_auto 1 0' \
    listeners 'told notify_10 10 0' \
    waiters 'told notify_waiters 0 10' \
    transaction 'told notify_transaction 1 0'
expect 'the worker notifies' "$(notifications event_store_notify_auto)" -ge "$rounds"
expect 'it does not where it is off' "$(notifications event_store_notify_off)" = 0
expect 'nor where transactions do' "$(notifications event_store_notify_transaction)" = 0
without='nothing preloaded, notify = off'
versus 'append, 32 clients; the worker notifies 1 listener' /s auto nothing "$without" '>= 0.9'
versus 'append, 32 clients; the worker notifies 10 listeners' /s listeners nothing "$without"
versus 'append, 32 clients; 10 waiters who call again at once' /s waiters nothing "$without"
versus 'append, 32 clients; notify = off, but the worker looks' /s worker nothing "$without"
versus 'append, 32 clients; each commit notifies 1 listener' /s transaction nothing "$without"
single 'notifications a second by the worker meanwhile' /s $(($(notifications event_store_notify_auto) / rounds / seconds))
bare check event_store
bare drop event_store
for name in $names; do
    check event_store@$name
    drop event_store@$name
done
