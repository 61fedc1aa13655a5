#!/usr/bin/env bash
# Every check of this project, from a bare Debian on: puts in place what is missing, then checks, and says what it does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

notes=()
passed=0

# `--sdk` also asks the providers' own libraries. `--fuzz` also lets libFuzzer try each parser for a minute (FUZZ_SECONDS).
main() {
  set_up
  step "format" cargo fmt --check
  step "lints" cargo clippy --locked --all-targets -- -D warnings
  step "documentation" documentation
  step "what may come into the house" cargo deny --locked --log-level error check --hide-inclusion-graph bans licenses sources
  step "known weaknesses of dependencies" advisories
  step "tests" tests
  [ "${1-}" != --fuzz ] || step "a search for what no parser stands" fuzzing
  [ "${1-}" != --sdk ] || step "the providers' own libraries (from the network)" libraries
  for note in "${notes[@]}"; do echo "note: $note"; done
  echo "All green: $passed tests passed, in $SECONDS s."
}

set_up() {
  [ -x "$(command -v cargo)" ] || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
  if ! command -v cargo >/dev/null; then
    echo "There is no Rust here. Install it from https://rustup.rs and try again:" >&2
    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    exit 1
  fi
  for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || step "cargo $component" rustup component add "${component/fmt/rustfmt}"
  done
  # cc: ring is partly C and assembly. php, node, python: what we read is compared with what they do.
  has cc || need gcc libc6-dev
  has php || need php-cli
  has node || need nodejs
  { has python3 && python3 -c 'import ensurepip'; } 2>/dev/null || need python3 python3-venv
  # The store is tried on disks that are cut off, broken, or not synced at all.
  has mkfs.xfs || need xfsprogs
  has eatmydata || need eatmydata
  has strace || need strace
  # What they take for a request is compared (nginx too, below), and they are honest clients.
  has apache2 || has /usr/sbin/apache2 || need apache2-bin
  has curl || need curl
  has h2load || need nghttp2-client
  # Lookups are tried on real servers. These packages start none; PostgreSQL's would, but for the line that `quiet_postgres`
  # writes.
  has mariadbd || has /usr/sbin/mariadbd || need mariadb-server-core
  has my_print_defaults || need mariadb-client-core
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || { step "no PostgreSQL of the machine's own" quiet_postgres; need postgresql; }
  # They are asked what they make of our completions.
  for shell in fish zsh; do has "$shell" || need "$shell"; done
  [ "${#missing[@]}" = 0 ] || step "Debian packages: ${missing[*]}" packages
  # Where cargo puts the programs it installs.
  export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
  has promtool && has prometheus || step "Prometheus and promtool, out of Debian's package (once)" \
    fetch prometheus /usr/bin/promtool /usr/bin/prometheus
  has nginx || has /usr/sbin/nginx || step "nginx, out of Debian's package (once)" fetch nginx /usr/sbin/nginx
  has cargo-deny || step "cargo-deny (once, about two minutes)" cargo install --locked cargo-deny
}

# Installed as it is, it would make a database and start a server.
quiet_postgres() {
  on_debian postgresql
  as_root mkdir -p /etc/postgresql-common/createcluster.d
  echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.d/none.conf >/dev/null
}

missing=()
need() { missing+=("$@"); }

packages() {
  on_debian "${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

has() { command -v "$1" >/dev/null; }

# Programs out of a package: installed as a whole it would start a server and bring a user and web pages along.
fetch() {
  local package=$1 folder file
  shift
  on_debian "$package"
  folder=$(mktemp -d)
  download "$package" "$folder" || { as_root apt-get update -q && download "$package" "$folder"; }
  for file; do
    dpkg-deb --fsys-tarfile "$folder/$package"_*.deb | tar -x -C "$folder" ".$file"
    install -D -m 755 "$folder$file" "${CARGO_HOME:-$HOME/.cargo}/bin/${file##*/}"
  done
  rm -r "$folder"
}

download() { (cd "$2" && apt-get download -q "$1"); }

on_debian() {
  command -v apt-get >/dev/null && return
  echo "This is no Debian; install this yourself: $*" >&2
  return 1
}

as_root() {
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" "$@"
}

documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps; }

advisories() {
  if timeout 120 cargo deny --log-level off fetch db >/dev/null 2>&1; then
    cargo deny --locked --log-level error check --hide-inclusion-graph advisories
  else
    notes+=("the advisory database could not be reached; known weaknesses of dependencies were NOT checked")
    echo "the advisory database cannot be reached: not checked"
  fi
}

tests() {
  local told
  if ! { [ "$(id -u)" = 0 ] && losetup -f; } >/dev/null 2>&1; then
    notes+=("mounts can't be had here; power cuts and full disks were NOT tried")
  fi
  told=$(mktemp)
  if command -v cargo-nextest >/dev/null; then
    cargo nextest run --locked --no-fail-fast 2>&1 | tee "$told"
    cargo test --locked --doc 2>&1 | tee -a "$told"
  else
    cargo test --locked --no-fail-fast 2>&1 | tee "$told"
  fi
  # The sums that the runners themselves give at their end.
  passed=$(grep -E '^ *Summary |^test result: ' "$told" | grep -oE '[0-9]+ passed' | awk '{ sum += $1 } END { print sum + 0 }')
  rm "$told"
}

# Asked for only, for the whole gate is built once more, so that it tells which ways were taken. Without it the same laws are
# tried with changed seeds (`tests/it/doors.rs`). The passes are LLVM's, and the stable compiler has them too.
fuzzing() {
  local door host built=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
  has c++ || { missing=(g++); packages; }
  host=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --locked --manifest-path fuzz/Cargo.toml --target-dir "$built" --target "$host"
  for door in fuzz/fuzz_targets/*.rs; do
    door=$(basename "$door" .rs)
    echo "--> $door"
    mkdir -p "$built/corpus/$door" "$built/faults"
    # What is slow or greedy is a fault as well.
    SEEDS="$built/seeds/$door" "$built/$host/debug/$door" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 \
      -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1 -artifact_prefix="$built/faults/$door-" \
      "$built/corpus/$door" "$built/seeds/$door" 2>&1 | grep -vE '^#|^"|^WARNING|NEW_FUNC|^INFO'
  done
}

# Asked for only, for it needs the network: packages of others are run, in a Python and a folder of their own.
libraries() {
  local apart gate=${CARGO_TARGET_DIR:-$PWD/target}/debug/oncegate
  has npm || { missing=(npm); packages; }
  apart=$(mktemp -d)
  python3 -m venv "$apart"
  "$apart/bin/python" tests/sdk/cross.py "$gate"
  node tests/sdk/cross.mjs "$gate" "$apart"
  rm -r "$apart"
}

step() {
  local title=$1 began=$SECONDS
  shift
  echo "==> $title"
  # Called plainly, and not in a condition: there `set -e` would sleep inside the functions.
  trap 'echo "FAILED: '"$title"'" >&2' EXIT
  "$@"
  trap - EXIT
  echo "    $((SECONDS - began)) s"
}

main "$@"
