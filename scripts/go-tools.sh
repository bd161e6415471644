#!/bin/sh
# Builds the programs in go-tools.txt into .tools/bin, each once per version, and helm-unittest.
set -eu
cd "$(dirname "$0")/.."

bin=$PWD/.tools/bin
mkdir -p "$bin"
export GOBIN=$bin GOFLAGS="-buildvcs=false -trimpath" GOTOOLCHAIN=local

# Builds with a Go compiler of at least the given version: build NAME VERSION OLDEST_GO PACKAGE
build() {
    stamp=$bin/.$1-$2
    [ -e "$stamp" ] && return
    go=$(cd "$root" && scripts/go.sh "$3")
    echo "==> building $1 $2, a minute or two the first time"
    "$go" install "$4" || return 1
    touch "$stamp"
}

root=$PWD
grep -v '^#' scripts/go-tools.txt | while read -r package; do
    build "$(basename "${package%@*}")" "${package##*@}" 1.24 "$package" || exit 1
done

# Its own go.mod replaces a module, so `go install package@version` refuses it.
cd scripts/helm-unittest
CGO_ENABLED=0 build helm-unittest "$(cat go.mod go.sum | cksum | cut -d ' ' -f 1)" 1.26 tool
