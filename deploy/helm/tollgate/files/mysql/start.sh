#!/bin/bash
# Starts the server with the given options, and creates the data folder if it does not exist. Every start creates the
# databases and users, so it completes what an interrupted start left undone and applies changed passwords. Each
# service has access to its own database only.
set -euo pipefail
export LC_ALL=C

data=${DATA_DIR:-/var/lib/mysql}
users=${RUN_DIR:-/var/run/mysqld}/users.sql
unfinished=$data/.unfinished

for password in "$MYSQL_ROOT_PASSWORD" "$AUTH_PASSWORD" "$BILLING_PASSWORD" "$BACKUP_PASSWORD"; do
    case $password in
        '' | *[!A-Za-z0-9]*)
            echo "error: passwords must be letters and digits" >&2
            exit 1
            ;;
    esac
done

if [[ -e $unfinished ]]; then
    find "$data" -mindepth 1 ! -path "$unfinished" -delete
fi
if [[ ! -d $data/mysql ]]; then
    if [[ -n $(ls "$data") ]]; then
        echo "error: $data contains files but no server tables" >&2
        exit 1
    fi
    # Hidden, because the server refuses a folder that contains anything else.
    touch "$unfinished"
    # PID 1 of a container ignores every signal that it does not handle.
    mysqld "$@" --datadir="$data" --initialize-insecure &
    initializing=$!
    trap 'kill "$initializing"; wait "$initializing"; exit 143' TERM
    wait "$initializing"
    trap - TERM
    rm "$unfinished"
    sync "$data" # before the first write, which a start after a crash must not delete
fi

# MariaDB accepts one statement per line, and no comments.
privileges="SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES"
read_privileges="SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT"
(
    umask 077
    cat >"$users" <<SQL
ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
CREATE USER IF NOT EXISTS root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
ALTER USER root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
CREATE DATABASE IF NOT EXISTS tollgate_auth CHARACTER SET utf8mb4;
CREATE DATABASE IF NOT EXISTS tollgate_billing CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS auth@'%' IDENTIFIED BY '$AUTH_PASSWORD';
ALTER USER auth@'%' IDENTIFIED BY '$AUTH_PASSWORD';
GRANT $privileges ON tollgate_auth.* TO auth@'%';
CREATE USER IF NOT EXISTS billing@'%' IDENTIFIED BY '$BILLING_PASSWORD';
ALTER USER billing@'%' IDENTIFIED BY '$BILLING_PASSWORD';
GRANT $privileges ON tollgate_billing.* TO billing@'%';
CREATE USER IF NOT EXISTS backup@'%' IDENTIFIED BY '$BACKUP_PASSWORD';
ALTER USER backup@'%' IDENTIFIED BY '$BACKUP_PASSWORD';
GRANT $read_privileges ON tollgate_auth.* TO backup@'%';
GRANT $read_privileges ON tollgate_billing.* TO backup@'%';
SQL
)
exec mysqld "$@" --datadir="$data" --init-file="$users"
