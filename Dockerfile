# scdrugmap with all plugins, without any weights. Not for root: cells come from strangers.
#
#   docker build -t scdrugmap:0.1.0 .                                   for CUDA and CPU
#   docker build -t scdrugmap:0.1.0-cpu --build-arg TORCH_INDEX=URL .   smaller, CPU only
#
# URL is the index of PyTorch's CPU builds (see "Get started" on PyTorch's site). Weights are mounted:
#   docker run --rm -v "$PWD":/data -v /srv/weights:/weights:ro scdrugmap:0.1.0 \
#       scdrugmap embed cells.h5ad --model scgpt -o embedded.h5ad
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=""
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /source
COPY constraints.txt .
RUN python -m venv /opt/scdrugmap \
    && /opt/scdrugmap/bin/pip install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . .
RUN /opt/scdrugmap/bin/pip install --no-cache-dir --constraint constraints.txt \
        '.[explain,llm,report]' ./plugins/*/

FROM python:${PYTHON}-slim
# ps is what Galaxy and Nextflow measure jobs with, unzip what the Galaxy tool `report` reads runs with
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps unzip \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 scdrugmap \
    && install --directory --owner scdrugmap /weights /data \
    && install --directory --mode 1777 /cache
COPY --from=build /opt/scdrugmap /opt/scdrugmap
ENV PATH=/opt/scdrugmap/bin:$PATH \
    HF_HUB_OFFLINE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    SCDRUGMAP_CACHE=/cache \
    SCDRUGMAP_WEIGHTS=/weights
USER 1000
WORKDIR /data
CMD ["scdrugmap", "--help"]
