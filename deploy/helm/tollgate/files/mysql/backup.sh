#!/bin/bash
# Both databases as of one moment, into BACKUP_DIR; backups older than BACKUP_KEEP_DAYS go.
set -euo pipefail

# First, as a full volume has no room for today's: what a killed run left, and what is too old. The newest
# stays even so, for the day after two weeks of failures. A run that goes on is younger than its deadline.
find "$BACKUP_DIR" -maxdepth 1 -name '.tollgate-*.part' -mmin +360 -delete
backups=("$BACKUP_DIR"/tollgate-*.sql.gz)
find "$BACKUP_DIR" -maxdepth 1 -name 'tollgate-*.sql.gz' ! -path "${backups[-1]}" \
    -mtime "+$BACKUP_KEEP_DAYS" -delete

name=tollgate-$(date -u +%Y%m%dT%H%M%SZ).sql.gz
draft=$BACKUP_DIR/.$name.part
trap 'rm -f "$draft"' EXIT

MYSQL_PWD=$BACKUP_PASSWORD mysqldump --no-defaults \
    --host="$MYSQL_HOST" --port="$MYSQL_PORT" --user=backup \
    --single-transaction --quick --hex-blob --no-tablespaces \
    --databases tollgate_auth tollgate_billing | gzip >"$draft"
# A dump that was cut short lacks its last line.
if [[ $(gzip -dc "$draft" | tail -n 1) != "-- Dump completed"* ]]; then
    echo "error: the dump is not complete" >&2
    exit 1
fi
sync "$draft"
mv "$draft" "$BACKUP_DIR/$name"
sync "$BACKUP_DIR"
echo "$BACKUP_DIR/$name"
