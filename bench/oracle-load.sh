#!/bin/sh
# Does the director load, attach and forward on this kernel? Run in the oracle's guest, with `xlvs` and oracle-hook.sh beside it:
#
#     guest/run-guest.sh -k 6.1 -a target/release/xlvs -a bench/oracle-hook.sh bench/oracle-load.sh
#
# A UDP datagram goes through NAT to a server in another namespace and back.
set -eu
here=$(pwd)
uname -r
modprobe veth
for name in gen lb sink; do ip netns add $name && ip -n $name link set lo up; done
ip -n lb link add l0 type veth peer name c0 netns gen
ip -n lb link add l1 type veth peer name e0 netns sink
ip -n gen addr add 10.0.0.1/24 dev c0 && ip -n gen link set c0 up
ip -n sink addr add 10.1.0.11/24 dev e0 && ip -n sink link set e0 up
for dev in l0 l1; do ip -n lb link set $dev up; done
ip -n lb addr add 10.0.0.254/24 dev l0 && ip -n lb addr add 10.0.0.100/32 dev l0 && ip -n lb addr add 10.1.0.254/24 dev l1
ip -n sink route add default via 10.1.0.254
ip netns exec lb sysctl -qw net.ipv4.ip_forward=1
# Checksums must be whole, and the far ends take frames from XDP only with NAPI.
for end in gen:c0 sink:e0; do ip netns exec ${end%:*} ethtool -K ${end#*:} tx off gro on >/dev/null; done
ip netns exec lb sh -c "
    set -e
    XLVS=$here/xlvs sh $here/oracle-hook.sh up l0 l1 10.0.0.100 9000 nat '10.1.0.11'
    ping -c 1 -W 2 10.1.0.11 >/dev/null && ping -c 1 -W 2 10.0.0.1 >/dev/null
    ip netns exec sink timeout 20 socat -u UDP4-RECV:9000,bind=10.1.0.11 SYSTEM:'cat >/tmp/got' 2>/dev/null &
    sleep 1
    for _ in 1 2 3; do ip netns exec gen sh -c 'echo hello | socat - UDP4:10.0.0.100:9000'; sleep 0.3; done
    XLVS=$here/xlvs sh $here/oracle-hook.sh down
"
grep -q hello /tmp/got && echo "loads, attaches and forwards on $(uname -r)"
