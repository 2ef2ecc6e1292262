# pdsynth as a BIDS App, with the CPU build of torch unless TORCH_INDEX names another index:
#   docker build --build-arg TORCH_INDEX=URL -t pdsynth .
#   docker run --rm -v "$PWD":/data pdsynth /data/my-study /data/synthesised participant
# docs/how-to/containers.md explains both.
FROM python:3.11-slim AS build
ARG TORCH_INDEX
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/pdsynth
ENV PATH=/opt/pdsynth/bin:$PATH
WORKDIR /build
COPY constraints.txt requirements.lock ./
RUN : "${TORCH_INDEX:?the index of the CPU builds of torch; docs/index.md says where PyTorch names it}" \
    && pip install -c constraints.txt --extra-index-url "$TORCH_INDEX" torch \
    && pip install --require-hashes -r requirements.lock
COPY pyproject.toml MANIFEST.in README.md LICENSE THIRD-PARTY-NOTICES CHANGELOG.md CITATION.cff ./
COPY src src
RUN pip install --no-deps .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="pdsynth" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/pdsynth /opt/pdsynth
ENV PATH=/opt/pdsynth/bin:$PATH MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /tmp
ENTRYPOINT ["pdsynth", "bids-app"]
CMD ["--help"]
