"""Where and in which numbers a network is trained: float32 here, bfloat16 products on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from search_spaces.network import Network, Op


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A torch device, and what products are computed in where that is not float32. Weights are always float32."""

    device: str = "cpu"
    products: torch.dtype | None = None

    def __str__(self) -> str:
        name = "float32" if self.products is None else str(self.products).removeprefix("torch.")
        return f"{name} on {self.device}"


def choose_arithmetic(network: Network, *, has_cuda: bool, has_bfloat16: bool) -> Arithmetic:
    """A GPU if there is one; bfloat16 if it has it. Networks with parts that ONNX Runtime computes stay here."""
    if not has_cuda or any(node.op in (Op.OPAQUE, Op.POINTWISE) for node in network.nodes):
        return Arithmetic()
    return Arithmetic("cuda", torch.bfloat16 if has_bfloat16 else None)


def arithmetic_here(network: Network) -> Arithmetic:
    """What this machine trains a network in."""
    has_cuda = torch.cuda.is_available()
    return choose_arithmetic(network, has_cuda=has_cuda, has_bfloat16=has_cuda and torch.cuda.is_bf16_supported())


def rounding_arithmetic(network: Network) -> Arithmetic:
    """What this machine trains a network in whose values are rounded on the way: nothing shorter than float32."""
    return Arithmetic(arithmetic_here(network).device)


@contextmanager
def computing_in(arithmetic: Arithmetic) -> Iterator[None]:
    """The same kernels every time, since the same seed is to give the same bits; float32 proper, not TF32."""
    if arithmetic.device == "cpu":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU, or of this machine: torch has no class for the latter."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
