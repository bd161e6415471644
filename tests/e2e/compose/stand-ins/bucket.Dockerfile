# The bucket emulator's program, built by scripts/go-tools.sh; see ../stand-ins.sh.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
# The official image is an Alpine, whose wget the health check uses.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
COPY fake-gcs-server /bin/fake-gcs-server
ENTRYPOINT ["/bin/fake-gcs-server", "-data", "/data"]
EXPOSE 4443
