#!/bin/sh
# Builds the programs in go-tools.txt into .tools/bin, each once per version.
set -eu
cd "$(dirname "$0")/.."

bin=$PWD/.tools/bin
OLDEST_GO=1.24

go=
mkdir -p "$bin"
grep -v '^#' scripts/go-tools.txt | while read -r package; do
    name=$(basename "${package%@*}")
    stamp=$bin/.${name}-${package##*@}
    [ -e "$stamp" ] && continue
    [ -n "$go" ] || go=$(scripts/go.sh "$OLDEST_GO")
    echo "==> building $name ${package##*@}, a minute or two the first time"
    GOBIN=$bin GOFLAGS=-buildvcs=false GOTOOLCHAIN=local "$go" install "$package" || exit 1
    touch "$stamp"
done
