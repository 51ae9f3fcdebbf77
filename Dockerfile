# The service with the models that ship; docs/image.md says how to build and run it.
# BASE_IMAGE: any Debian-based image with Python 3.11 or newer. PROVIDER: cpu or cuda. MODELS: shipped or none.
ARG BASE_IMAGE=python:3.13-slim
ARG PROVIDER=cpu
ARG MODELS=shipped

# What to install goes by its own file: a change of pyproject.toml that leaves the list as it is installs nothing anew.
FROM ${BASE_IMAGE} AS requirements
ARG PROVIDER
COPY pyproject.toml deploy/image/requirements.py /
RUN python3 /requirements.py "${PROVIDER}" /pyproject.toml > /requirements.txt

FROM ${BASE_IMAGE} AS dependencies
WORKDIR /build
RUN python3 -m venv /opt/seqserve
COPY --from=requirements /requirements.txt ./
COPY constraints.txt constraints-cuda.txt deploy/image/unused.txt ./
# Wheels only: whatever would need a compiler fails here. Bytecode is compiled here, since the service runs where it cannot write any; it is taken as
# it is, whatever a copy does to times. Libraries' tests and what nothing of ours imports stay out.
RUN /opt/seqserve/bin/pip install --no-cache-dir --no-compile --only-binary :all: \
        --constraint constraints.txt --constraint constraints-cuda.txt --requirement requirements.txt \
    && /opt/seqserve/bin/pip uninstall --yes --requirement unused.txt pip \
    && find /opt/seqserve/lib -type d -name tests -prune -exec rm -r {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -x '/(onnxruntime/(quantization|tools|transformers)|numpy/f2py)/' /opt/seqserve/lib

FROM ${BASE_IMAGE} AS package
WORKDIR /build
RUN python3 -m venv /tools
COPY pyproject.toml README.md LICENSE ./
COPY seqserve/ seqserve/
RUN /tools/bin/pip install --no-cache-dir --no-compile --no-deps --target /app . \
    && rm -r /app/bin
COPY service/ /app/service/
# The checkout may be its owner's alone (umask 077); the service runs as another user. The same for the models below.
RUN chmod -R a+rX /app \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE_IMAGE} AS models
ARG MODELS
WORKDIR /models
COPY exported/ ./
RUN case "${MODELS}" in shipped) ;; none) rm -r ./* ;; *) echo "MODELS: expected shipped or none, found ${MODELS}"; exit 1 ;; esac \
    && chmod -R a+rX .

FROM ${BASE_IMAGE}
COPY --from=dependencies /opt/seqserve /opt/seqserve
# Where pip put CUDA's libraries, for the loader; without CUDA there are none.
RUN find /opt/seqserve/lib -type d -path '*/nvidia/*/lib' -exec ldconfig {} +
WORKDIR /app
COPY --from=models /models exported/
COPY --from=package /app ./
ARG PROVIDER
# A mesh or a proxy in front ends TLS; without one, set SEQSERVE_TLS_CERTIFICATE and SEQSERVE_TLS_KEY, and SEQSERVE_ALLOW_PLAINTEXT to false.
ENV PATH=/opt/seqserve/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SEQSERVE_ALLOW_PLAINTEXT=true \
    SEQSERVE_GRPC_ADDRESS=0.0.0.0:50051 \
    SEQSERVE_HTTP_ADDRESS=0.0.0.0:8080 \
    SEQSERVE_PROVIDER=${PROVIDER}
USER 65532:65532
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "service"]
ARG BASE_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="seqserve" \
      org.opencontainers.image.description="gRPC service for recurrent networks exported to ONNX" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
