# The image of GrantServer: a Python without shell or pip, our dependencies as pinned, our program.
#
#   docker build -t grantserver .
#
# Both bases are arguments, to be given by digest where a build is to be the same for ever:
#
#   docker build --build-arg BUILD_IMAGE=python:3.11-slim-bookworm@sha256:... \
#                --build-arg RUNTIME_IMAGE=gcr.io/distroless/python3-debian12:nonroot@sha256:... \
#                --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" -t grantserver .
#
# They need the same minor release of Python: what is installed in one runs in the other. Where the
# second one has it at another place than /usr/bin/python3, PYTHON says where.
ARG BUILD_IMAGE=python:3.11-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/python3-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# All that has a date gets this one.
ARG SOURCE_DATE_EPOCH=0
ARG PYTHON=/usr/bin/python3
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
# Ready-made wheels only: nothing is compiled, and no stranger's build script runs.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m pip install --quiet --require-hashes --only-binary :all: --no-compile \
        --target /opt/grantserver -r requirements.lock \
 && python3 -m pip install --quiet --require-hashes --only-binary :all: --no-compile \
        --target /opt/build -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY app app
# Bytecode is kept because the root file system is read-only, and not compared with its source; of
# the models of Kubernetes, which are never loaded, it would be 50 MB.
RUN PYTHONPATH=/opt/build python3 -m pip wheel --quiet --no-deps --no-build-isolation \
        --wheel-dir /opt/wheels . \
 && python3 -m pip install --quiet --no-deps --no-index --no-compile \
        --target /opt/grantserver /opt/wheels/*.whl \
 && rm -rf /opt/grantserver/bin \
 && find /opt/grantserver -depth \( -name tests -o -name test \) -type d -exec rm -rf {} + \
 && find /opt/grantserver \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' \) -delete \
 && python3 -m compileall -q --invalidation-mode unchecked-hash \
        -x 'kubernetes/(aio/)?client/(api|models)/' /opt/grantserver \
 && mkdir -p /image/opt /image/usr/local/bin /image/var/lib/grantserver /image/tmp \
 && printf '#!%s\nimport sys\n\nfrom app.cli import main\n\nsys.exit(main())\n' "${PYTHON}" \
        >/image/usr/local/bin/grantserver \
 && chmod 755 /image/usr/local/bin/grantserver \
 && mv /opt/grantserver /image/opt/grantserver \
 && chown -R 65532:65532 /image/var/lib/grantserver \
 && chmod 700 /image/var/lib/grantserver \
 && chmod 1777 /image/tmp \
 && find /image -exec touch -h -d "@${SOURCE_DATE_EPOCH}" {} +

FROM ${RUNTIME_IMAGE}
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="GrantServer" \
      org.opencontainers.image.description="Redeems Skupper access tokens: short-lived secrets in, client certificates and Links out, exactly as often as allowed." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
ENV PYTHONPATH=/opt/grantserver \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRANTSERVER_DATA_DIR=/var/lib/grantserver
# A number, so that Kubernetes sees without a look into the image that it is not root.
USER 65532:65532
WORKDIR /var/lib/grantserver
VOLUME /var/lib/grantserver
EXPOSE 9090 9091
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as it; it.urlopen('http://127.0.0.1:9091/readyz', timeout=4)"]
ENTRYPOINT ["/usr/local/bin/grantserver"]
CMD ["serve"]
