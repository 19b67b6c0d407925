"""How a design is tried: torch, ONNX Runtime, hardware, Celery tasks."""

import os

# ONNX Runtime otherwise reports its use, with an id of the machine, to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
