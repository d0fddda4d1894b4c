# The command `hades`, with the versions of uv.lock.
#   docker build -t hades .                               CPU
#   docker build -t hades --build-arg DEVICE=cuda .       NVIDIA GPUs: docker run --gpus all ...
#   docker run --rm -v "$PWD/runs:/work/runs" hades distill --preset cartpole --out runs/cartpole
FROM python:3.12-slim AS build
ARG DEVICE=cpu
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /hades
# Packages first: a change of the code does not download them again.
COPY pyproject.toml uv.lock ./
RUN case "$DEVICE" in cpu) extra="" ;; cuda) extra="--extra cuda" ;; *) echo "DEVICE: expected cpu or cuda, got $DEVICE"; exit 1 ;; esac \
 && uv sync --frozen --no-install-project --extra mujoco --extra k8s $extra
COPY README.md LICENSE hades_command.py ./
COPY hades hades
COPY envs envs
COPY experiments experiments
RUN case "$DEVICE" in cuda) extra="--extra cuda" ;; *) extra="" ;; esac \
 && uv sync --frozen --no-editable --extra mujoco --extra k8s $extra

FROM python:3.12-slim
COPY --from=build /hades/.venv /hades/.venv
ENV PATH=/hades/.venv/bin:$PATH
RUN useradd --create-home hades && mkdir /work && chown hades /work
USER hades
WORKDIR /work
ENTRYPOINT ["hades"]
CMD ["--help"]
