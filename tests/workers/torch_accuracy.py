"""How much torch gets right, without ONNX Runtime."""

from __future__ import annotations

import torch

from search_spaces.network import Network
from workers.splits import Split, normalise
from workers.torch_network import build_module
from workers.weights import Weights


def accuracy(network: Network, weights: Weights, split: Split) -> float:
    """Share of the split's images that the network gets right, in evaluation mode."""
    with torch.inference_mode():
        outputs = build_module(network, weights).eval()(torch.from_numpy(normalise(split.images, network.input)))
    return float((outputs.argmax(1).numpy() == split.labels).mean())
