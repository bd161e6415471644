# MariaDB in place of the official MySQL image; see ../stand-ins.sh.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
# Any version that the distribution has will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends mariadb-server \
    && rm -rf /var/lib/apt/lists/* /var/lib/mysql/* \
    && install --directory --owner mysql --group mysql /run/mysqld \
    && printf '[mysqld]\nbind-address = 0.0.0.0\n' >/etc/mysql/mariadb.conf.d/99-reachable.cnf
COPY mysqld /usr/local/bin/mysqld
CMD ["mysqld"]
VOLUME /var/lib/mysql
EXPOSE 3306
