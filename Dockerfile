# The service with the models that ship. BASE_IMAGE: any Debian-based image with Python 3.11 or newer.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
RUN python3 -m venv /opt/seqserve
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY seqserve/ seqserve/
RUN /opt/seqserve/bin/pip install --no-cache-dir --no-compile --constraint constraints.txt '.[serve]' \
    && /opt/seqserve/bin/pip uninstall --yes pip

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="seqserve" \
      org.opencontainers.image.description="gRPC service for recurrent networks exported to ONNX" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/seqserve /opt/seqserve
WORKDIR /app
COPY service/ service/
COPY exported/ exported/
# A mesh or a proxy in front ends TLS; without one, set SEQSERVE_TLS_CERTIFICATE and SEQSERVE_TLS_KEY, and this to false.
ENV SEQSERVE_ALLOW_PLAINTEXT=true
ENV PATH=/opt/seqserve/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SEQSERVE_GRPC_ADDRESS=0.0.0.0:50051 \
    SEQSERVE_HTTP_ADDRESS=0.0.0.0:8080
USER 65532:65532
EXPOSE 50051 8080
ENTRYPOINT ["python3", "-m", "service"]
