# The environment of tools/setup.sh in a container. The locked torch brings its own
# CUDA libraries; a CUDA base is for tools beside it:
#   docker build -t medssl_mm --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
ARG BASE=ubuntu:24.04
FROM ${BASE}

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates procps python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /medssl_mm
# First what set-up installs from, so that a change of the sources keeps this layer.
COPY pyproject.toml setup.py README.md LICENSE requirements.txt model-index.yml ./
COPY requirements requirements
COPY tools tools
COPY configs configs
COPY medssl_mm medssl_mm
ENV UV_NO_CACHE=1 UV_LINK_MODE=copy
RUN bash tools/setup.sh
COPY . .
RUN bash tools/setup.sh
ENV PATH=/medssl_mm/.venv/bin:$PATH
CMD ["medssl", "--help"]
