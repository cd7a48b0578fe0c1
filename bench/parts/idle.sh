# What those do who have nothing to do.  The background writer logs the running
# transactions when there has been something to log; that is not ours.

# processes CONDITION: files that tell what they have used
processes() { value "SELECT format('/proc/%s/stat /proc/%s/status', pid, pid) FROM pg_stat_activity WHERE $1"; }

# usage FILE…: milliseconds on the CPU, and how often they slept
usage() {
    awk -v tick="$(getconf CLK_TCK)" '
        FILENAME ~ /stat$/ { ms += ($14 + $15) * 1000 / tick }
        /^voluntary_ctxt_switches/ { slept += $2 }
        END { print ms, slept }' "$@"
}

watch_idle() {
    local names=('launcher' 'worker' '10 waiters' 'listener') before=() lsn='' end i used slept
    local files=("$(processes "backend_type = 'event_store launcher'")"
        "$(processes "backend_type = 'event_store worker' AND datname = 'event_store_idle'")"
        "$(processes "query LIKE '%wait_for_events(%' AND state = 'active' AND pid <> pg_backend_pid()")"
        "$(processes "query LIKE '%wait_for_events(%' AND state = 'idle'")")
    expect 'there is a launcher, a worker, and so on' "$(wc -w <<< "${files[*]}")" = 26
    # At rest?  A checkpoint, the last look of the worker and so on may still come.
    for ((i = 0; i < 60; i++)); do
        end=$(value 'SELECT pg_current_wal_insert_lsn()')
        [ "$lsn" != "$end" ] || break
        lsn=$end
        sleep 2
    done
    for i in "${!files[@]}"; do before[i]=$(usage ${files[i]}); done
    sleep "$idle"
    for i in "${!files[@]}"; do
        read -r used slept < <(echo "${before[i]} $(usage ${files[i]})" | awk '{ print $3 - $1, $4 - $2 }')
        single "idle for $idle s: ${names[i]}, CPU" ms "$used" "$([ $i -gt 1 ] || echo '<= 0')"
        single "idle for $idle s: ${names[i]}, woken" times "$slept" "$([ $i -gt 1 ] || echo '<= 0')"
    done
    end=$(value 'SELECT pg_current_wal_insert_lsn()')
    sql -c 'SELECT txid_current()'    # flushes it
    single "idle for $idle s: the WAL" records "$({ [ "$lsn" = "$end" ] ||
        pg_waldump -p "$PRIVATE/clusters/bench/pg_wal" -s "$lsn" -e "$end"; } | awk '!/RUNNING_XACTS/ { n++ } END { print n + 0 }')" '<= 0'
}

sql -c 'ALTER SYSTEM SET autovacuum = off' -c "ALTER SYSTEM SET checkpoint_timeout = '1h'" -c 'SELECT pg_reload_conf()'
fresh event_store@idle
PGDATABASE=event_store_idle sql -c "SELECT event_store.append('ev', 'order-1', 'OrderPlaced', '{}')" -c CHECKPOINT
PGDATABASE=event_store_idle beside event_store_idle 1 10 watch_idle > /dev/null
drop event_store@idle
sql -c 'ALTER SYSTEM RESET autovacuum' -c 'ALTER SYSTEM RESET checkpoint_timeout' -c 'SELECT pg_reload_conf()'
