# docker build --file=docker/cuda.Dockerfile --tag=emsam-cuda .
# docker run --rm --gpus=all --volume="$PWD:/work" emsam-cuda demo --out=runs/demo
# CUDA comes with jax; of the host it needs the driver and NVIDIA's container toolkit.
FROM python:3.11-slim
COPY pyproject.toml constraints.txt README.md LICENSE /emsam/
COPY emsam_jax /emsam/emsam_jax
RUN pip install --no-cache-dir --constraint=/emsam/constraints.txt "/emsam[cluster,gpu]"
WORKDIR /work
ENTRYPOINT ["emsam"]
