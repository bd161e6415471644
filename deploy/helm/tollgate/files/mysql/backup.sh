#!/bin/bash
# Dumps a consistent snapshot of both databases to BACKUP_DIR, and deletes backups older than BACKUP_KEEP_DAYS.
set -euo pipefail

# Delete first, because a full volume has no room for today's dump: drafts of killed runs, and old backups. Always
# keep the newest backup, even if none has succeeded for weeks. The draft of a live run is younger than its deadline.
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
# A truncated dump lacks its last line.
if [[ $(gzip -dc "$draft" | tail -n 1) != "-- Dump completed"* ]]; then
    echo "error: the dump is not complete" >&2
    exit 1
fi
sync "$draft"
mv "$draft" "$BACKUP_DIR/$name"
sync "$BACKUP_DIR"
echo "$BACKUP_DIR/$name"
