# shellcheck shell=bash
#
# What the parts of a benchmark have in common; bench/run sources it.  A side is
# a directory of bench/peers, and a database of that name; side@x one named
# side_x.

results=$PRIVATE/results    # of a race: a line "side round figure", for each figure of one round a file
records=$PRIVATE/records    # for the report
report=$PRIVATE/report
mkdir -p "$report" "$PRIVATE/acknowledged"
: > "$records"
: > "$report/latest.tsv"

streams=100
spread=1        # 0: all streams are of one category
length=0        # of a stream to read

# 256 bytes.
export DATA='{"order": 4711, "customer": "customer-1000042", "lines": [{"sku": "A-1042", "count": 2, "price": 1999}, {"sku": "B-7", "count": 1, "price": 349}], "address": {"street": "Hauptstrasse 5", "city": "Berlin", "zip": "10827"}, "total": 43.47, "gift": false}'

sql() { psql -Xq -v ON_ERROR_STOP=1 "$@" > /dev/null; }
value() { psql -XqAt -v ON_ERROR_STOP=1 -c "$1"; }
figures() { "$here/figures" "$@"; }

# at SERVER DATABASE COMMAND…
at() { PGHOST=$PRIVATE/sockets/$1 PGDATABASE=$2 "${@:3}"; }

# expect WHAT TEST…: that all is as it is called
expect() { test "${@:2}" || { echo "not what it should be: $1" >&2; exit 1; }; }

clients_text() { [ "$1" = 1 ] && echo '1 client' || echo "$1 clients"; }

### The sides

# Those of them that are here and have that file.
having() {
    local side
    for side in event_store plain $peers; do
        [ ! -e "$here/peers/$side/$1" ] || [ ! -e "$PRIVATE/sides/$side" ] || echo "$side"
    done
}

# Makes a template for each side on this server; a peer that cannot be made is
# left out.
describe_sides() {
    local side
    mkdir -p "$PRIVATE/sides"
    for side in event_store plain $peers; do
        if make_template "$side" > "$PRIVATE/out" 2>&1; then
            touch "$PRIVATE/sides/$side"
        else
            cat "$PRIVATE/out" >&2
            case $side in event_store | plain) exit 1 ;; esac
            echo "$side cannot be installed: without it" >&2
        fi
    done
}

# No `set -e` here.
make_template() {
    local dir=$here/peers/$1 PGDATABASE=template_$1
    { case $1 in event_store | plain) ;; *) [ -d "$PRIVATE/peers/$1" ] ;; esac } &&
        createdb -h "$PGHOST" "$PGDATABASE" && export PGDATABASE &&
        { [ ! -x "$dir/create" ] || "$dir/create" "$PRIVATE/peers/$1"; } &&
        psql -Xq -v ON_ERROR_STOP=1 -f "$dir/create.sql"
}

# New databases for these sides.
fresh() {
    local side db
    for side in "$@"; do
        db=${side//@/_}
        PGDATABASE=postgres sql -c "SET client_min_messages = warning" -c "DROP DATABASE IF EXISTS $db"
        createdb -T "template_${side%%@*}" "$db"
        : > "$(acknowledged_file "$side")"
    done
    sql -c CHECKPOINT
}

drop() {
    local side
    for side in "$@"; do sql -c "DROP DATABASE ${side//@/_}"; done
    sql -c CHECKPOINT
}

# fill SIDE PREFIX EVENTS STREAMS
fill() {
    local db=${1//@/_}
    PGDATABASE=$db sql -v prefix="$2" -v events="$3" -v streams="$4" -v data="$DATA" -f "$here/peers/${1%%@*}/fill.sql"
    acknowledged "$1" "$3"
}

# acknowledged SIDE [N]: takes down, or tells, how many events it has
# acknowledged
acknowledged() {
    local file
    file=$(acknowledged_file "$1")
    if [ $# = 2 ]; then
        echo "$2" >> "$file"
    else
        awk '{ n += $1 } END { print n + 0 }' "$file"
    fi
}

acknowledged_file() { echo "$PRIVATE/acknowledged/${PGHOST##*/}_${1//@/_}"; }

# That each side has as many events as it has acknowledged, and, but for "loose",
# that no stream has a gap.
check() {
    local loose='' side got
    if [ "$1" = loose ]; then loose=1; shift; fi
    for side in "$@"; do
        got=$(PGDATABASE=${side//@/_} value 'SELECT count(*) FROM bench_events')
        expect "$side has $got events, has acknowledged $(acknowledged "$side")" "$got" = "$(acknowledged "$side")"
        [ "$loose" ] || expect "the versions of $side have gaps" "$(PGDATABASE=${side//@/_} value '
            SELECT count(*) FROM (SELECT FROM bench_events GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1) s')" = 0
    done
}

# notifications DATABASE: that the worker has sent
notifications() { PGDATABASE=$1 value "SELECT notifications FROM event_store.feed_status('ev')"; }

### Racing

# race LABEL COMMAND…: runs the commands in turn, each round another one first.
# Each gets a number of its round, which no other race has, as its last argument,
# and prints lines of one figure or more.
rounds_so_far=0
race() {
    local sides=("$@") n=$(($# / 2)) round i k figures
    rm -f "$results"*
    sql -c CHECKPOINT
    for ((round = 1; round <= rounds; round++)); do
        for ((k = 0; k < n; k++)); do
            i=$((2 * ((k + round - 1) % n)))
            figures=$(${sides[i + 1]} "$((rounds_so_far + round))")
            expect "${sides[i]} has a figure" -n "$figures"
            awk -v label="${sides[i]}" -v round="$round" -v file="$results" '
                { for (i = 1; i <= NF; i++) print label, round, $i >> (file (i == 1 ? "" : "." i)) }' <<< "$figures"
        done
    done
    rounds_so_far=$((rounds_so_far + rounds))
}

# race_sides SIDES COMMAND ARGUMENT…: the same for sides, each of which is the
# command's first argument
race_sides() {
    local side pairs=()
    for side in $1; do pairs+=("$side" "$2 $side ${*:3}"); done
    race "${pairs[@]}"
}

# drive DATABASE SCRIPT CLIENTS SECONDS ROUND [OPTION…]: "speed transactions"
drive() {
    local out
    out=$(PGDATABASE=$1 pgbench -n -M prepared -f "$2" -c "$3" -j "$(($3 > 1 ? 2 : 1))" -T "$4" \
        -D data="$DATA" -D round="$5" -D n=0 -D streams="$streams" -D spread="$spread" -D length="$length" "${@:6}" 2>&1) ||
        { echo "$out" >&2; exit 1; }
    figures pgbench <<< "$out"
}

# tps SIDE WORK CLIENTS ROUND: transactions a second, of which each appends one
# event where the work is to append
tps() {
    local speed count
    read -r speed count < <(drive "${1//@/_}" "$here/peers/${1%%@*}/$2.sql" "$3" "$seconds" "$4")
    expect "$1: $2" -n "$count"
    case $2 in append*) acknowledged "$1" "$count" ;; esac
    echo "$speed"
}

# tps_and_more …: the same, and quantiles of the transactions' times, and how many
# bytes of WAL each takes
tps_and_more() {
    local speed count wal log=$PRIVATE/tmp/pgbench_log
    rm -f "$log".*
    wal=$(value 'SELECT pg_current_wal_insert_lsn()')
    read -r speed count < <(drive "$1" "$here/peers/$1/$2.sql" "$3" "$seconds" "$4" --log --log-prefix="$log")
    expect "$1: $2" -n "$count"
    expect "$1: $count transactions are in the log" "$(cat "$log".* | wc -l)" = "$count"
    acknowledged "$1" "$count"
    wal=$(value "SELECT round((pg_current_wal_insert_lsn() - '$wal') / $count)")
    echo "$speed $(figures quantiles "$log".*) $wal"
}

### Beside

# follow SIDE READERS [TIMES]: starts so many readers of its feed; sets FOLLOW and
# follow_pid, to ask them.  finish_follow N: waits until they have got so many
# events; sets fewest and most.
follow() {
    local ready
    coproc FOLLOW { PGDATABASE=$1 exec "$PRIVATE/feed" follow "$here/peers/$1/feed.sql" "${@:2}"; }
    follow_pid=$FOLLOW_PID
    ticker=
    if [ -e "$here/peers/$1/tick.sql" ]; then
        PGDATABASE=$1 psql -Xq -f "$here/peers/$1/tick.sql" > /dev/null &
        ticker=$!
    fi
    read -r ready <&"${FOLLOW[0]}"
    expect 'the readers are ready' "$ready" = ready
}

finish_follow() {
    echo "until $1" >&"${FOLLOW[1]}"
    read -r fewest most <&"${FOLLOW[0]}"
    wait "$follow_pid"
    if [ "$ticker" ]; then
        kill "$ticker"
        wait "$ticker" || :
    fi
}

# beside DATABASE LISTENERS WAITERS COMMAND…: runs the command with so many
# listeners, and waiters who call again at once, beside it.  In the end they all
# must have come to know of the last event.
beside() {
    local watch ready
    coproc WATCH { PGDATABASE=$1 exec "$PRIVATE/latency" watch "$2" "$3"; }
    watch=$WATCH_PID
    read -r ready <&"${WATCH[0]}"
    "${@:4}"
    PGDATABASE=$1 value "SELECT max(position) FROM ev" >&"${WATCH[1]}"
    wait "$watch"
}

### Reporting

# Takes down what the rounds had.
keep() { awk -v OFS='\t' -v work="$1" '{ print work, $1, $2, $3 }' "$2" >> "$report/latest.tsv"; }

# sides WORK UNIT [SIDE=TARGET…]: from the race's results; FILE is another one
sides() {
    local file=${FILE:-$results}
    keep "$1" "$file"
    figures sides "$@" < "$file" | tee -a "$records" | tell
}

# versus WORK UNIT OURS THEIRS TITLE [TARGET]
versus() {
    local file=${FILE:-$results}
    keep "$1" "$file"
    figures versus "$@" < "$file" | tee -a "$records" | tell
}

# summary WORK UNIT SIDE [TARGET]
summary() { figures summary "$@" < "${FILE:-$results}" | tee -a "$records" | tell; }

# single WORK UNIT FIGURE [TARGET]
single() { echo "x 1 $3" | figures summary "$1" "$2" x "${4:-}" | tee -a "$records" | tell; }

tell() { awk -F '\t' '{ printf "  %s: %.5g %s%s%s\n", $2, $6, $3, $7 == "" ? "" : sprintf(", %s %.5g", $5, $7), $8 == "" ? "" : sprintf(": %.2f (%.2f to %.2f)", $8, $9, $10) }' >&2; }

complaints() { { cat "$PRIVATE"/{bench,bare,logical}.log 2>/dev/null || :; } | figures complaints; }

# Microseconds that pg_test_fsync says a flush takes.
flush() {
    pg_test_fsync -s 1 -f "$PRIVATE/tmp/flush" | awk '$1 == "fdatasync" { for (i = 2; i < NF; i++) if ($(i + 1) == "usecs/op") { print $i; exit } }'
}

# The commands' own notes are in the files of the sides.
write_report() {
    local side head=$PRIVATE/head version versions='' minutes
    minutes=$((($(date +%s) - began + 30) / 60))
    for side in $(having about); do
        version=$PRIVATE/peers/$side/version
        [ ! -e "$version" ] || versions+=", $(cat "$version")"
    done
    {
        echo "# How fast"
        echo
        echo "$(date -u +%Y-%m-%d), $(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), $(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GB," \
            "$(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r); a flush (pg_test_fsync, fdatasync) takes $(flush) µs."
        echo "$(postgres --version), event_store $(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$PRIVATE/tree/event_store.control")$versions."
        echo "Settings: $(printf '%s, ' "${settings[@]:0:4}" "${preloaded[@]}")else defaults."
        echo "$rounds rounds of $seconds s, all sides in turn on one cluster; $minutes minutes: \`make bench${full:+-full}\`${ONLY:+ with ONLY=\"$ONLY\"}."
        echo
        echo "A figure is the median of the rounds, a ratio the median of the rounds' ratios, with the least and the greatest. **Above 1 event_store is better**: faster, or" \
            "where the unit is ms or bytes, less. \"Nothing\" is where a side has done nothing at all. Events have 256 bytes of JSON."
        for side in plain $peers; do
            if [ -e "$PRIVATE/sides/$side" ]; then
                awk 'NR == 1 { printf "\n* **%s**: ", $0 } NR == 2 { printf "%s", $0 }' "$here/peers/$side/about"
            else
                printf '\n* **%s** could not be had.' "$(head -n 1 "$here/peers/$side/about")"
            fi
        done
        echo
    } > "$head"
    figures report "$records" "$report/latest.md" "$report/latest.svg" \
        "event_store against others, $(date -u +%Y-%m-%d), $(nproc) cores" plain $peers < "$head"
    figures short plain $peers < "$records" > "$report/short.md"
    cat "$report/latest.md"
}
