#!/bin/sh
# What the tests need and pip cannot install: a MariaDB server and Chromium.
# Installed where that may be done without asking (root on Debian); else each missing one is named.
set -eu

PATH=$PATH:/usr/sbin:/usr/local/sbin
missing=
command -v mariadbd >/dev/null || command -v mysqld >/dev/null || missing="mariadb-server"
command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
    command -v google-chrome >/dev/null || missing="$missing chromium"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "==> installing for the tests:" $missing
    # The tests start a server of their own: keep the package from starting one.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f $policy' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if apt-get update >"$log" 2>&1 </dev/null &&
        apt-get install -y --no-install-recommends $missing >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        exit 0
    fi
    tail -n 20 "$log" >&2
fi

for package in $missing; do
    echo "!!! MISSING: $package, so the tests that need it are skipped" >&2
done
if [ "${CI:-}" = true ]; then
    echo "error: under CI nothing may be skipped" >&2
    exit 1
fi
