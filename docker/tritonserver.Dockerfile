# Triton for one server of a plan: the stock image, what the generic Python models import, and two
# small programs. Build it from the root of a checkout:
#   docker build --file docker/tritonserver.Dockerfile --tag tritier/tritonserver:0.1.0 .
# Releases before 26.06 lack fixes of public security faults (docs/security.md).
ARG TRITON_RELEASE=26.06
FROM nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3

# A folder of its own: nothing that the image brings is replaced, and no flag is needed against pip's
# protection of the system's Python.
COPY docker/tritonserver.requirements.txt constraints.txt /opt/tritier/
RUN python3 -m pip install --no-cache-dir --target /opt/tritier/site \
        --requirement /opt/tritier/tritonserver.requirements.txt \
        --constraint /opt/tritier/constraints.txt

# Starts tritonserver without the administrative key in its arguments; and the health check.
COPY generator/tritier/deployment/hidden_key.py docker/ready.py /opt/tritier/

ENV PYTHONPATH=/opt/tritier/site \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
# The stock image's own user `triton-server`. Any other may be given when a container is started.
USER 1000:1000
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --timeout=6s --start-period=120s --retries=6 \
    CMD ["python3", "/opt/tritier/ready.py"]
CMD ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", \
     "--load-model=*", "--disable-auto-complete-config", "--allow-http=false"]
