#!/bin/sh
# Of what the official image's entrypoint does, that which docker-compose.yml relies on: a first start
# makes the data folder, gives root its password, and runs /docker-entrypoint-initdb.d/*.sh against a
# server that no other container can reach yet.
set -eu

data=/var/lib/mysql
if [ ! -d $data/mysql ]; then
    chown mysql:mysql $data
    mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=normal >/dev/null
    mariadbd --user=mysql --skip-networking &
    server=$!
    left=60
    until mariadb-admin ping --silent; do
        left=$((left - 1))
        [ $left -gt 0 ] || exit 1
        sleep 0.5
    done
    mariadb -e "ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD'"
    for script in /docker-entrypoint-initdb.d/*.sh; do
        [ ! -e "$script" ] || bash "$script"
    done
    MYSQL_PWD=$MYSQL_ROOT_PASSWORD mariadb-admin --user=root shutdown
    wait $server
fi
shift
exec mariadbd --user=mysql --bind-address=0.0.0.0 "$@"
