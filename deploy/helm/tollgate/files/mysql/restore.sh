#!/bin/bash
# Replaces both databases with a backup: BACKUP_FILE of BACKUP_DIR, by default the newest.
# Stop auth and billing first: what they write in the meantime would be lost or would conflict with the backup.
set -euo pipefail

backups=("$BACKUP_DIR"/tollgate-*.sql.gz)
path=${BACKUP_FILE:+$BACKUP_DIR/$BACKUP_FILE}
path=${path:-${backups[-1]}}
if ! gzip -t "$path"; then
    echo "error: $path is not a backup" >&2
    exit 1
fi

{
    # Tables newer than the backup must not remain beside its own.
    for database in tollgate_auth tollgate_billing; do
        echo "DROP DATABASE IF EXISTS $database; CREATE DATABASE $database CHARACTER SET utf8mb4;"
    done
    gzip -dc "$path"
} | MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql --no-defaults \
    --host="$MYSQL_HOST" --port="$MYSQL_PORT" --user=root
echo "restored $path"
