#!/bin/sh
# Installs the test tools that pip cannot: a MariaDB server, Chromium, three reverse proxies, jq, wrk,
# a JDK, and Go programs.
# Debian packages are installed only as root; otherwise missing tools are listed.
set -eu
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin:/usr/local/sbin

debian_packages() {
    missing=
    command -v mariadbd >/dev/null || command -v mysqld >/dev/null || missing="mariadb-server"
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null || missing="$missing chromium"
    command -v javac >/dev/null || missing="$missing default-jdk-headless"
    for program in nginx haproxy caddy jq wrk; do # the packages have the same names
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        return 1
    fi

    echo "==> installing for the tests:" $missing
    # The tests start their own server; keep the package from starting one.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f $policy' EXIT
    fi
    log=$(mktemp)
    if DEBIAN_FRONTEND=noninteractive apt-get update >"$log" 2>&1 </dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing \
            >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    return 1
}

lacking=
debian_packages || lacking=$missing
scripts/go-tools.sh || lacking="$lacking go-tools"
for tool in $lacking; do
    echo "!!! MISSING: $tool, so the tests that need it are skipped" >&2
done
if [ -n "$lacking" ] && [ "${CI:-}" = true ]; then
    echo "error: CI must not skip any tests" >&2
    exit 1
fi
