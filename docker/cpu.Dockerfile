# docker build --file=docker/cpu.Dockerfile --tag=emsam .
# docker run --rm --volume="$PWD:/work" emsam demo --out=runs/demo
FROM python:3.11-slim
COPY pyproject.toml constraints.txt README.md LICENSE /emsam/
COPY emsam_jax /emsam/emsam_jax
RUN pip install --no-cache-dir --constraint=/emsam/constraints.txt "/emsam[cluster]"
WORKDIR /work
ENTRYPOINT ["emsam"]
