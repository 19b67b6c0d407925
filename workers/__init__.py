"""How a design is tried: torch, ONNX Runtime, hardware, Celery tasks."""
