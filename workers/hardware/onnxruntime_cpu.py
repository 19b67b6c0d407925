"""`local-cpu`: this machine's processor, by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime

from workers.hardware.base import Deployed
from workers.hardware.processor_device import ProcessorDevice
from workers.hardware.timing import Protocol, Run
from workers.onnx_session import check_executed, open_session

NAME = "local-cpu"


class OnnxRuntimeCpu(ProcessorDevice):
    """See the module."""

    name = NAME
    runtime = "ONNX Runtime"

    def version(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    def open(self, model: bytes, protocol: Protocol) -> Run:
        session = open_session(model, protocol.threads)
        (image,) = session.get_inputs()
        data = np.random.default_rng(0).standard_normal(image.shape, dtype=np.float32)
        feed = {image.name: data}
        return lambda: session.run(None, feed)

    def check_executed(self, deployed: Deployed, protocol: Protocol) -> None:
        check_executed(deployed.network, deployed.model)
