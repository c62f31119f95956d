# Shapes the links of a container, see docs/export.md. Build it from the root of a checkout:
#   docker build --file docker/links.Dockerfile --tag tritier/links:0.1.0 .
ARG PYTHON_RELEASE=3.11
FROM python:${PYTHON_RELEASE}-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends iproute2 \
    && rm -rf /var/lib/apt/lists/*
COPY docker/links.py /opt/tritier/links.py
# tc needs the capability NET_ADMIN, which only root has in a container; it gets no other one.
USER 0:0
# It has nothing to answer; when it ends it is started again.
HEALTHCHECK NONE
ENTRYPOINT ["python3", "/opt/tritier/links.py"]
