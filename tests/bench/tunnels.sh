#!/usr/bin/env bash
# TUN mode and a forward of the client beside wireguard-go, boringtun-cli, ssh -L and no tunnel, in one run: Mbit/s with 1 and 8
# streams, processor time, time to open a stream; on a cable, and with 40 ms and 1 % loss.
#
# usage: tests/bench/tunnels.sh [SECONDS]     default 5 for each figure; as root, on Debian
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/install
export BENCH_SECONDS=${1:-5}
if [[ -z ${POMERIUM_BIN_DIR:-} ]]; then
  cargo build --locked --release -p pomerium-gateway -p pomerium-cli --bins
  cargo build --locked --release -p pomerium-tests --bin tunnels
  export POMERIUM_BIN_DIR=$PWD/target/release
fi

PATH=$PATH:/usr/sbin:/sbin
apps=bench-apps-$$
trap 'ip netns del "$apps"; rm -r "/etc/netns/$apps"' EXIT
# Where `ip netns exec` looks for files that the namespace has instead of the machine's.
mkdir -p "/etc/netns/$apps"
echo "127.0.0.1 localhost authenticate.localhost" >"/etc/netns/$apps/hosts"
echo "# nobody is asked" >"/etc/netns/$apps/resolv.conf"
ip netns add "$apps"
ip -n "$apps" link set lo up
ip netns exec "$apps" "$POMERIUM_BIN_DIR/tunnels"
