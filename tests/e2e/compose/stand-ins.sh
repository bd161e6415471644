#!/bin/sh
# For a machine that can reach a Debian mirror but no image registry: builds stand-ins for the images
# that the Dockerfile and docker-compose.yml name, under the same names. Needs root, docker, debootstrap
# and .tools/bin (scripts/go-tools.sh). Keeps images that already exist.
#
#   python:3.11-slim-bookworm   Debian bookworm with its own Python 3.11 and this machine's CA bundle
#   mysql:8.4                   the same, with MariaDB as its mysqld
#   fsouza/fake-gcs-server      the same, with the emulator's program
set -eu
cd "$(dirname "$0")/../../.."

DOCKER=${DOCKER:-docker}
BASE=${BASE:-python:3.11-slim-bookworm}
MYSQL_IMAGE=${MYSQL_IMAGE:-mysql:8.4}
BUCKET_IMAGE=${BUCKET_IMAGE:-fsouza/fake-gcs-server:1.56.1}
export DOCKER_BUILDKIT=0

have() { $DOCKER image inspect "$1" >/dev/null 2>&1; }

if ! have "$BASE"; then
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        bookworm "$tree" ${MIRROR:+"$MIRROR"} >&2
    ln -sf python3 "$tree/usr/bin/python"
    cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$tree"/var/cache/apt/archives/*.deb
    tar -C "$tree" -c . | $DOCKER import - "$BASE" >/dev/null
fi
have "$MYSQL_IMAGE" || $DOCKER build --quiet --network host --build-arg BASE="$BASE" \
    --tag "$MYSQL_IMAGE" --file tests/e2e/compose/stand-ins/mysql.Dockerfile tests/e2e/compose/stand-ins
have "$BUCKET_IMAGE" || $DOCKER build --quiet --network host --build-arg BASE="$BASE" \
    --tag "$BUCKET_IMAGE" --file tests/e2e/compose/stand-ins/bucket.Dockerfile .tools/bin
