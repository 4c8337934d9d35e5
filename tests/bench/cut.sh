#!/usr/bin/env bash
# How soon live streams end when they are no longer allowed.
#
# usage: tests/bench/cut.sh [STREAMS]     default 1000; as root, on Debian
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/install
# Each stream is two sockets in the measuring process alone.
ulimit -n 16384
export BENCH_STREAMS=${1:-1000}
cargo build --locked --release -p pomerium-gateway -p pomerium-cli --bins
cargo build --locked --release -p pomerium-tests --bin cut
PATH=$PATH:/usr/sbin POMERIUM_BIN_DIR=$PWD/target/release exec target/release/cut
