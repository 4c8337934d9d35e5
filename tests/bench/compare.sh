#!/usr/bin/env bash
# Throughput and time to open a stream: the tunnel beside `ssh -L` (aes128-gcm) and a direct connection, in one run.
#
# usage: tests/bench/compare.sh [MEBIBYTES]     default 1024; as root, on Debian
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/install
export BENCH_MEBIBYTES=${1:-1024}
cargo build --locked --release -p pomerium-gateway -p pomerium-cli --bins
cargo build --locked --release -p pomerium-tests --bin compare
PATH=$PATH:/usr/sbin POMERIUM_BIN_DIR=$PWD/target/release exec target/release/compare
