#!/usr/bin/env bash
# Makes sure that the Debian packages behind `make setup` or `make test` are there.
# As root on Debian it installs what is missing; otherwise it says what to install.
set -euo pipefail

PYTHON="${PYTHON:-python3}"
missing=()

# require PACKAGE COMMAND...: the package is missing when the command fails.
require() {
    local package="$1"
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

has_postgres() { command -v postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres'; }

case "${1:-}" in
    setup)
        require python3-venv "$PYTHON" -c 'import ensurepip, venv'
        ;;
    test)
        require postgresql has_postgres
        require redis-server command -v redis-server
        require chromium command -v chromium
        require g++ command -v g++
        require dataset-fashion-mnist test -d /usr/share/datasets/fashion-mnist
        ;;
    *)
        echo "usage: $0 setup|test" >&2
        exit 2
        ;;
esac

if ((${#missing[@]} == 0)); then
    exit 0
fi
if [[ "$(id -u)" != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Missing system packages. On Debian: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "Installing system packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
