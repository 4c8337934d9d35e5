#!/usr/bin/env bash
# Requests per second, latency, CPU and memory as a web proxy: the gateway, with each request decided, beside nginx and
# HAProxy without, in one run.
#
# usage: tests/bench/web.sh [LOAD]         all some five minutes, or those whose name has LOAD ("h2, 64"); as root, on Debian
#        tests/bench/web.sh websockets     what 10,000 idle WebSockets hold of memory
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/install
export DEBIAN_FRONTEND=noninteractive
command -v h2load >/dev/null && [ -x /usr/sbin/haproxy ] ||
  apt-get install -y -qq --no-install-recommends nghttp2-client haproxy
ulimit -n "$(ulimit -Hn)"
cargo build --locked --release -p pomerium-gateway --bins
cargo build --locked --release -p pomerium-tests --bin web
PATH=$PATH:/usr/sbin POMERIUM_BIN_DIR=$PWD/target/release exec target/release/web "${1:-}"
