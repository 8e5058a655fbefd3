# One image for both roles; SVSM_ATTEST_ROLE chooses. Any Debian-like base with python3 >= 3.11 works.
# `--target demo` adds swtpm, so that the simulated VM has a TPM.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /opt/build \
 && /opt/build/bin/python -m pip install --quiet --no-cache-dir --require-hashes -r requirements-build.lock \
 && python3 -m venv --without-pip /opt/svsm-attest \
 && /opt/build/bin/python -m pip --python /opt/svsm-attest/bin/python install --quiet --no-cache-dir \
    --only-binary :all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN /opt/build/bin/python -m pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/python -m pip --python /opt/svsm-attest/bin/python install --quiet --no-cache-dir \
    --no-deps --no-index /wheels/*.whl

FROM ${BASE_IMAGE} AS service
LABEL org.opencontainers.image.title="svsm-attest" \
      org.opencontainers.image.description="Attests and verifies the SVSM vTPM of a SEV-SNP confidential VM" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/svsm-attest /opt/svsm-attest
ENV PATH=/opt/svsm-attest/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SVSM_ATTEST_STORE=/var/lib/svsm-attest/endorsements \
    SVSM_ATTEST_SIMULATOR_STATE_DIR=/var/lib/svsm-attest/simulator
# Numeric, so that an orchestrator can see that it is not root.
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/svsm-attest
USER 65532:65532
WORKDIR /var/lib/svsm-attest
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["svsm-attest", "health"]
ENTRYPOINT ["svsm-attest"]
CMD ["serve"]

FROM service AS demo
USER 0:0
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends swtpm >/dev/null \
 && rm -rf /var/lib/apt/lists/*
USER 65532:65532

FROM service
