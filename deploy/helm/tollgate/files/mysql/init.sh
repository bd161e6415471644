#!/bin/bash
# The databases and users of a new server: a service may work on its own database and nothing else.
# Run once, by the image's entrypoint, as root of the server.
set -euo pipefail

client() {
    MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql --no-defaults --user=root "$@"
}

refuse_unsafe() {
    case $1 in
        '' | *[!A-Za-z0-9]*)
            echo "error: passwords must be letters and digits" >&2
            exit 1
            ;;
    esac
}

for password in "$AUTH_PASSWORD" "$BILLING_PASSWORD" "$BACKUP_PASSWORD"; do
    refuse_unsafe "$password"
done

client <<SQL
CREATE DATABASE IF NOT EXISTS tollgate_auth CHARACTER SET utf8mb4;
CREATE DATABASE IF NOT EXISTS tollgate_billing CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS auth@'%' IDENTIFIED BY '$AUTH_PASSWORD';
CREATE USER IF NOT EXISTS billing@'%' IDENTIFIED BY '$BILLING_PASSWORD';
CREATE USER IF NOT EXISTS backup@'%' IDENTIFIED BY '$BACKUP_PASSWORD';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES
    ON tollgate_auth.* TO auth@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES
    ON tollgate_billing.* TO billing@'%';
GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT ON tollgate_auth.* TO backup@'%';
GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT ON tollgate_billing.* TO backup@'%';
SQL
