# One image per service and one for the trainer: docker build --target auth|billing|console|inference|trainer .
# `make images` builds all five. Each contains only the pinned packages, the sources of its own service, the
# shared code and, except for the console, the command line. It runs as uid 10001 and writes only to /tmp and
# /var/lib/tollgate.
#
# BASE is a Debian with Python 3.11. For reproducible builds, such as a release, pass it with its digest
# (python:3.11-slim-bookworm@sha256:…). Or pass your own image, such as one that trusts your package mirror's
# certificate.
ARG BASE=python:3.11-slim-bookworm

# -- packages: a virtual environment without pip, and what pip installs into it ---------------------
# hadolint ignore=DL3006
FROM ${BASE} AS packages
# A package mirror and its CA certificates (a path in BASE). pip treats "" as unset. No image below starts
# from this stage, so neither is in an image.
ARG PIP_INDEX_URL=""
ARG PIP_CERT=""
ENV PIP_INDEX_URL=${PIP_INDEX_URL} PIP_CERT=${PIP_CERT} \
    PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv --without-pip /opt/tollgate

FROM packages AS auth-packages
COPY requirements/auth.txt .
RUN python3 -m pip --python /opt/tollgate/bin/python install \
    --only-binary :all: --require-hashes --requirement auth.txt

# billing-parquet adds pyarrow (165 MB), for usage as Parquet; billing-archive adds DuckDB and gcsfs (107 MB),
# for archived months.
FROM packages AS billing-packages
ARG BILLING=billing
COPY requirements/${BILLING}.txt requirements.txt
RUN python3 -m pip --python /opt/tollgate/bin/python install \
    --only-binary :all: --require-hashes --requirement requirements.txt

FROM packages AS console-packages
COPY requirements/console.txt .
RUN python3 -m pip --python /opt/tollgate/bin/python install \
    --only-binary :all: --require-hashes --requirement console.txt

# The docs site: its reference is made from the sources, so this stage has the packages of all services.
FROM packages AS docs
COPY requirements/docs.txt .
RUN python3 -m pip --python /opt/tollgate/bin/python install \
    --only-binary :all: --require-hashes --requirement docs.txt
COPY mkdocs.yml Makefile .env.example pyproject.toml ./
COPY cli cli
COPY services services
COPY registry registry
COPY trainer trainer
COPY functions functions
COPY harness harness
COPY scripts scripts
COPY docs docs
COPY deploy/helm/tollgate/README.md deploy/helm/tollgate/
RUN NO_MKDOCS_2_WARNING=1 PYTHONPATH=.:scripts /opt/tollgate/bin/python -m mkdocs build --strict --quiet

# inference-joblib adds scikit-learn, for models that could not be exported (INFERENCE_ALLOW_JOBLIB).
FROM packages AS inference-packages
ARG INFERENCE=inference
COPY requirements/${INFERENCE}.txt requirements.txt
RUN python3 -m pip --python /opt/tollgate/bin/python install \
    --only-binary :all: --require-hashes --requirement requirements.txt

FROM packages AS trainer-packages
COPY requirements/trainer.txt .
RUN python3 -m pip --python /opt/tollgate/bin/python install \
    --only-binary :all: --require-hashes --requirement trainer.txt

# -- runtime: the common part of all five images ----------------------------------------------------
# hadolint ignore=DL3006
FROM ${BASE} AS runtime
# Create the state folders here, so that a new volume mounted on one belongs to the user.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* \
    && useradd --uid 10001 --no-create-home --home-dir /var/lib/tollgate --shell /usr/sbin/nologin tollgate \
    && install --directory --owner 10001 --group 10001 --mode 0700 \
        /var/lib/tollgate /var/lib/tollgate/keys /var/lib/tollgate/keys/auth \
        /var/lib/tollgate/keys/receipts /var/lib/tollgate/keys/trusted /var/lib/tollgate/journal \
    && printf '#!/bin/sh\nexec python -m cli.main "$@"\n' >/usr/local/bin/tollgate \
    && chmod 0755 /usr/local/bin/tollgate
# gcsfs reads its variable at import. Its probe of a bucket's kind needs permissions that nothing else needs,
# and an emulator does not answer it.
ENV PATH=/opt/tollgate/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/tollgate/src \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false \
    TOLLGATE_HOME=/var/lib/tollgate
WORKDIR /opt/tollgate/src
COPY pyproject.toml .
# `tollgate --version` reads this metadata.
RUN python3 -c "import pathlib, tomllib; \
version = tomllib.load(open('pyproject.toml', 'rb'))['project']['version']; \
folder = pathlib.Path(f'tollgate-{version}.dist-info'); \
folder.mkdir(); \
(folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: tollgate\nVersion: {version}\n')"
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Tollgate"

# -- the images -------------------------------------------------------------------------------------
FROM runtime AS auth
LABEL org.opencontainers.image.title="tollgate-auth" \
      org.opencontainers.image.description="Tollgate: users, machine clients and tokens"
COPY --from=auth-packages /opt/tollgate /opt/tollgate
COPY cli cli
COPY services/__init__.py services/
COPY services/common services/common
COPY services/auth services/auth
RUN python -m compileall -q .
ENV AUTH_HOST=0.0.0.0 AUTH_PORT=8001
EXPOSE 8001
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec python -m services.common.http.readiness $AUTH_PORT"]
CMD ["python", "-m", "services.auth"]

FROM runtime AS billing
LABEL org.opencontainers.image.title="tollgate-billing" \
      org.opencontainers.image.description="Tollgate: usage events, plans, prepaid credit, receipts"
COPY --from=billing-packages /opt/tollgate /opt/tollgate
COPY cli cli
COPY services/__init__.py services/
COPY services/common services/common
COPY registry registry
COPY services/billing services/billing
RUN python -m compileall -q .
ENV BILLING_HOST=0.0.0.0 BILLING_PORT=8003
EXPOSE 8003
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec python -m services.common.http.readiness $BILLING_PORT"]
CMD ["python", "-m", "services.billing"]

FROM runtime AS inference
LABEL org.opencontainers.image.title="tollgate-inference" \
      org.opencontainers.image.description="Tollgate: metered predictions from signed models"
COPY --from=inference-packages /opt/tollgate /opt/tollgate
COPY cli cli
COPY services/__init__.py services/
COPY services/common services/common
COPY registry registry
COPY services/inference services/inference
RUN python -m compileall -q .
ENV INFERENCE_HOST=0.0.0.0 INFERENCE_PORT=8002
EXPOSE 8002
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec python -m services.common.http.readiness $INFERENCE_PORT"]
CMD ["python", "-m", "services.inference"]

FROM runtime AS console
LABEL org.opencontainers.image.title="tollgate-console" \
      org.opencontainers.image.description="Tollgate: the pages for buyers and sellers"
COPY --from=console-packages /opt/tollgate /opt/tollgate
COPY services/__init__.py services/
COPY services/common services/common
COPY services/console services/console
COPY --from=docs /build/build/docs build/docs
RUN python -m compileall -q services && rm /usr/local/bin/tollgate
ENV CONSOLE_HOST=0.0.0.0 CONSOLE_PORT=8000
EXPOSE 8000
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec python -m services.common.http.readiness $CONSOLE_PORT"]
CMD ["python", "-m", "services.console"]

FROM runtime AS trainer
LABEL org.opencontainers.image.title="tollgate-trainer" \
      org.opencontainers.image.description="Tollgate: data to gated, signed model version to release"
COPY --from=trainer-packages /opt/tollgate /opt/tollgate
COPY cli cli
COPY services/__init__.py services/
COPY services/common services/common
COPY registry registry
COPY trainer trainer
RUN python -m compileall -q .
ENV MPLCONFIGDIR=/tmp
USER 10001:10001
HEALTHCHECK NONE
CMD ["tollgate", "--help"]
