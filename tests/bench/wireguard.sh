#!/usr/bin/env bash
# Throughput of wireguard-go to an iperf3 server behind the gateway, beside wireguard-go and boringtun-cli with the kernel's TCP at the
# far end, in one run; then many peers at once.
#
# usage: tests/bench/wireguard.sh [SECONDS [PEERS ACTIVE]]     default 10 1000 200, 0 leaves a part out; as root, on Debian
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/install
export BENCH_SECONDS=${1:-10} BENCH_PEERS=${2:-1000} BENCH_ACTIVE=${3:-200}
if [[ -z ${POMERIUM_BIN_DIR:-} ]]; then
  cargo build --locked --release -p pomerium-gateway -p pomerium-cli --bins
  cargo build --locked --release -p pomerium-tests --bin wireguard
  export POMERIUM_BIN_DIR=$PWD/target/release
fi

# Two machines, as far as IP is concerned.
PATH=$PATH:/usr/sbin:/sbin
near=bench-near-$$ far=bench-far-$$
trap 'ip netns del "$near"; ip netns del "$far"' EXIT
ip netns add "$near"
ip netns add "$far"
ip -n "$near" link add wan type veth peer name wan netns "$far"
ip -n "$near" addr add 10.77.0.2/24 dev wan
ip -n "$far" addr add 10.77.0.1/24 dev wan
for namespace in "$near" "$far"; do
  ip -n "$namespace" link set wan up
  ip -n "$namespace" link set lo up
done
export BENCH_NEAR=$near
# Each wireguard-go watches its control socket.
instances=$(</proc/sys/fs/inotify/max_user_instances)
((instances > 2 * BENCH_ACTIVE)) || echo $((2 * BENCH_ACTIVE + 128)) >/proc/sys/fs/inotify/max_user_instances
ulimit -n 16384
ip netns exec "$far" "$POMERIUM_BIN_DIR/wireguard"
