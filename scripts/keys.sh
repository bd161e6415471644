#!/bin/sh
# Fetches keys from Secret Manager into .keys/, for TRAINER_SIGNING_KEY and TRAINER_TRUSTED_KEYS.
# Usage: keys.sh <secret of the signing key, or ""> "<secrets of trusted public keys> ..."
set -eu
cd "$(dirname "$0")/.."
umask 077

mkdir -p .keys/trusted
if [ -n "$1" ]; then
    gcloud secrets versions access latest --secret "$1" --out-file .keys/signing.pem
fi
for secret in $2; do
    gcloud secrets versions access latest --secret "$secret" --out-file ".keys/trusted/$secret.pem"
done
