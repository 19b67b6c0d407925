# Two images from one file: `service` answers HTTP and carries no torch; `worker` does the work.
#   docker build --target service -t espalier-service .
#   docker build --target worker -t espalier-worker .
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 ESPALIER_HOME=/var/lib/espalier
RUN useradd --create-home espalier && install -d -o espalier /var/lib/espalier
WORKDIR /app
COPY pyproject.toml constraints.txt README.md alembic.ini ./
COPY alembic alembic
COPY examples examples
COPY search_spaces search_spaces
COPY service service

FROM base AS service
RUN pip install --constraint constraints.txt --editable .
USER espalier
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/v1/health', timeout=4)"]
CMD ["uvicorn", "service.app:create_app", "--factory", "--host", "0.0.0.0", "--port", "8080"]

FROM base AS worker
RUN apt-get update \
    && apt-get install -y --no-install-recommends dataset-fashion-mnist \
    && rm -rf /var/lib/apt/lists/*
COPY workers workers
RUN pip install --constraint constraints.txt --editable '.[worker]'
USER espalier
CMD ["espalier", "worker"]
