# perf_analyzer, from Triton's SDK image, and the tool with Locust. Build it from the root of a
# checkout:
#   docker build --file docker/loadtests.Dockerfile --tag tritier/loadtests:0.1.0 .
ARG TRITON_RELEASE=26.06
FROM nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3-sdk

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY generator generator
COPY model_repository_templates model_repository_templates
COPY triton triton
COPY loadtests loadtests
COPY examples/super_resolution examples/super_resolution
# A folder of its own: the packages of the SDK stay as they are.
RUN python3 -m pip install --no-cache-dir --target /opt/tritier/site \
        --constraint constraints.txt '.[loadtest,plots,report]'

ENV PYTHONPATH=/opt/tritier/site \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp
WORKDIR /data
USER 1000:1000
# It runs one command and ends.
HEALTHCHECK NONE
ENTRYPOINT ["python3", "-m", "tritier"]
CMD ["--help"]
