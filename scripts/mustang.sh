#!/bin/sh
# Fetches the Mustang validator, which checks PDFs of invoices, into .tools/mustang, once per version.
set -eu
cd "$(dirname "$0")/mustang"

folder=../../.tools/mustang
stamp=$folder/.$(cksum <pom.xml | cut -d ' ' -f 1)
[ -e "$stamp" ] && exit 0
missing=
command -v java >/dev/null || missing=" default-jdk-headless"
command -v mvn >/dev/null || missing="$missing maven"
if [ -z "$missing" ]; then
    echo "==> fetching the Mustang validator, a minute the first time"
    rm -rf "$folder"
    mvn -q -B dependency:copy-dependencies -DoutputDirectory="$PWD/$folder" >&2 && touch "$stamp" && exit 0
    missing=" the Mustang validator"
fi
echo "!!! MISSING:$missing, so no invoice's PDF is checked with Mustang" >&2
