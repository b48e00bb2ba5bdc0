# The command on a CPU, as a user without rights:
#   docker build -t compress .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" compress prune model.pt --data digits
FROM python:3.12-slim

WORKDIR /src
# PyTorch first, in a layer of its own: it is nearly all of the image and changes least. Which versions will do is said
# in pyproject.toml, and checked by the installation below.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY compress compress
COPY plugins plugins
RUN pip install --no-cache-dir . && rm -rf /src

RUN useradd --create-home --uid 1000 compress && mkdir /work && chown compress /work
USER 1000
WORKDIR /work
# Caches of libraries; any user may write there
ENV MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["compress"]
CMD ["--help"]
