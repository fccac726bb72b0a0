#!/bin/sh
# Counts instructions a packet of kernel IPVS and of xlvs in its place, in one boot of an emulated machine whose clock counts
# instructions:
#
#     bench/oracle.sh DIRECTORY [options of its perf.py]
#
# DIRECTORY is the oracle's, with `perf/run.sh` in it and its guest made (`guest/setup.sh`). Build the binary before: `cargo xtask build`.
set -eu
[ $# -ge 1 ] || { sed -n '2,7p' "$0" >&2; exit 2; }
oracle=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
binary=${XLVS:-$here/../target/release/xlvs}
[ -x "$binary" ] || { echo "oracle.sh: $binary is not there: \`cargo xtask build\` makes it" >&2; exit 1; }
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
strip -o "$files/xlvs" "$binary"
cp "$here/oracle-hook.sh" "$files/"
# perf.py calls every hook for dr; these say otherwise, and their names are those of the rows.
for method in dr nat tun; do
    printf '#!/bin/sh\nMETHOD=%s exec sh /host/oracle-hook.sh "$@"\n' $method >"$files/xlvs-$method.sh"
done
"$oracle/perf/run.sh" --add "$files/xlvs" --add "$files/oracle-hook.sh" --add "$files/xlvs-dr.sh" --add "$files/xlvs-nat.sh" \
    --add "$files/xlvs-tun.sh" --rs 1 --hook=/host/xlvs-dr.sh --hook=/host/xlvs-nat.sh --hook=/host/xlvs-tun.sh "$@"
