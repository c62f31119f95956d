# The tool, without the embedded Triton. Build it from the root of a checkout:
#   docker build --file docker/tritier.Dockerfile --tag tritier/tritier:0.1.0 .
ARG PYTHON_RELEASE=3.11
FROM python:${PYTHON_RELEASE}-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY generator generator
COPY model_repository_templates model_repository_templates
COPY triton triton
COPY loadtests loadtests
COPY examples/super_resolution examples/super_resolution
RUN python3 -m venv /opt/tritier \
    && /opt/tritier/bin/python -m pip install --no-cache-dir --constraint constraints.txt \
        '.[plots,report]'

FROM python:${PYTHON_RELEASE}-slim
COPY --from=build /opt/tritier /opt/tritier
ENV PATH=/opt/tritier/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp
WORKDIR /data
USER 1000:1000
# It runs one command and ends.
HEALTHCHECK NONE
ENTRYPOINT ["tritier"]
CMD ["--help"]
