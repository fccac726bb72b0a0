#!/bin/sh
# Puts xlvs where a measurement of kernel IPVS had IPVS, in the network namespace that this is called in:
#
#     oracle-hook.sh up|down IN OUT VIP PORT dr|nat|tun 'RS1 RS2 ..'
#
# IN and OUT are the interfaces towards the generator and the servers; the service is VIP:PORT of UDP, by rr. `up` returns when
# packets can flow. METHOD overrides the method, for callers that always say dr. The binary is XLVS, or `xlvs` beside this script.
set -eu
usage() { sed -n '2,7p' "$0" >&2; exit 2; }
[ $# -ge 3 ] || usage
run_dir=/run/xlvs-oracle
bpffs=$run_dir/bpf
xlvs=${XLVS:-$(dirname "$0")/xlvs}
export XLVS_RUN_DIR=$run_dir XLVS_BPFFS=$bpffs

up() {
    [ $# -eq 6 ] || usage
    case ${METHOD:-$5} in dr) flag=-g ;; nat) flag=-m ;; tun) flag=-i ;; *) usage ;; esac
    mkdir -p "$bpffs"
    mountpoint -q "$bpffs" || mount -t bpf bpf "$bpffs"
    # Nothing of the caller's may be held open: it waits for the end of our output.
    setsid "$xlvs" run --interface "$1" --interface "$2" --max-conns "${MAX_CONNS:-65536}" --max-conns-v6 1000 \
        --max-services 1000 --max-servers 1000 </dev/null >"$run_dir/log" 2>&1 &
    echo $! >"$run_dir/pid"
    for _ in $(seq 300); do
        "$xlvs" ipvsadm -L -n >/dev/null 2>&1 && break
        kill -0 "$(cat "$run_dir/pid")" 2>/dev/null || { cat "$run_dir/log" >&2; return 1; }
        sleep 0.1
    done
    {
        echo "-A -u $3:$4 -s rr"
        for server in $6; do echo "-a -u $3:$4 -r $server:$4 $flag"; done
    } | "$xlvs" ipvsadm -R
}

down() {
    pid=$(cat "$run_dir/pid")
    # Where each command has a mount namespace of its own (`ip netns exec`), the daemon's holds the pinned programs, and goes with it.
    "$xlvs" status || cat "$run_dir/log" >&2
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    if mountpoint -q "$bpffs"; then "$xlvs" unload && umount "$bpffs"; fi
    rm -rf "$run_dir"
}

case $1 in
    up) shift; up "$@" ;;
    down) down ;;
    *) usage ;;
esac
