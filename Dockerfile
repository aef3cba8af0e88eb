# reg-engine in a container. Pictures land in the folder that is mounted:
#
#   docker build -t reg-engine .
#   docker run --rm -v "$PWD/out:/work" reg-engine sample --labels 0-9 --scale 4 --out digits.png
#
# With CUDA, on a machine with NVIDIA's container toolkit, run with `--gpus all`:
#
#   docker build -t reg-engine:cuda --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
# Nothing secret goes in: no argument, file or variable of it.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Bases of CUDA bring no Python; that of Python has one in /usr/local, which comes first.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ ninja-build \
    && if ! command -v python3 >/dev/null; then \
           apt-get install -y --no-install-recommends python3 python3-venv; fi \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/reg-engine
WORKDIR /source
COPY constraints.txt .
RUN /opt/reg-engine/bin/python -m pip install --index-url "${TORCH_INDEX}" -c constraints.txt torch \
    && /opt/reg-engine/bin/python -m pip install -c constraints.txt setuptools
COPY pyproject.toml setup.py CMakeLists.txt README.md LICENSE ./
COPY csrc csrc
COPY kernels kernels
COPY reg_engine reg_engine
RUN REG_ENGINE_BUILD=1 /opt/reg-engine/bin/python -m pip install \
        -c constraints.txt --no-build-isolation .

FROM ${BASE}
# hadolint ignore=DL3008
RUN if ! command -v python3 >/dev/null; then \
        apt-get update \
        && apt-get install -y --no-install-recommends python3 \
        && rm -rf /var/lib/apt/lists/*; fi \
    && useradd --create-home --uid 10001 reg \
    && install -d -o reg -g reg /work
COPY --from=build /opt/reg-engine /opt/reg-engine
ENV PATH=/opt/reg-engine/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
ENTRYPOINT ["reg-engine"]
CMD ["--help"]
