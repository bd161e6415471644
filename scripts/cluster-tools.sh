#!/bin/sh
# Builds the tools of tests/e2e/cluster into .tools/cluster, once per set of versions: a control plane
# and kwok with its stages, pinned by scripts/cluster-tools/go.mod, and the CRDs of crds.txt.
set -eu
cd "$(dirname "$0")/.."

out=$PWD/.tools/cluster
OLDEST_GO=1.26
pins=scripts/cluster-tools
stamp=$out/.$(cat $pins/go.mod $pins/go.sum $pins/crds.txt | cksum | cut -d ' ' -f 1)
[ -e "$stamp" ] && exit

echo "==> building a Kubernetes control plane, about ten minutes the first time"
go=$(scripts/go.sh "$OLDEST_GO")
rm -rf "$out"
mkdir -p "$out/crds" "$out/stages"
cd $pins
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath" GOTOOLCHAIN=local
version=$("$go" list -m -f '{{.Version}}' k8s.io/kubernetes)
stamped=k8s.io/component-base/version.gitVersion=$version # no chart accepts the default, v0.0.0
GOBIN=$out nice "$go" install -ldflags="-s -X $stamped" tool
mv "$out/server" "$out/etcd" # the last part of its package's path
stages=$("$go" list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
install -m 644 "$stages"/node/fast/node-*.yaml "$stages"/pod/fast/pod-*.yaml "$out/stages"
grep -v '^#' crds.txt | while read -r module files; do
    folder=$("$go" mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    (cd "$folder" && install -m 644 $files "$out/crds") || exit 1
done
touch "$stamp"
