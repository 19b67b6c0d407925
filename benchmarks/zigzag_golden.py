"""ZigZag's published regression value, ResNet-18 on the accelerator like the first TPU, by `zigzag-tpu-like`.

Minutes on one core. Its own value is of version 3.8.5; what 3.9 does otherwise is told in `docs/devices.md`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

from search_spaces.catalog import build_network
from search_spaces.network import in_precision
from search_spaces.precision import W8A8
from search_spaces.spec import Family, NetworkSpec
from workers.hardware.zigzag import layer_figures
from workers.hardware.zigzag_descriptions import DESCRIPTIONS
from workers.hardware.zigzag_layers import zigzag_layers

PUBLISHED_PJ, PUBLISHED_CYCLES = 1_871_436_380.66, 3_703_960.5


def main() -> None:
    network = build_network(NetworkSpec(family=Family.RESNET_18, input=(3, 224, 224)), 1000, (0.5,) * 3, (0.5,) * 3)
    layers = zigzag_layers(in_precision(network, W8A8))
    layers[-1]["operand_precision"]["O_final"] = 8  # as in its own file
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = layer_figures(layers, DESCRIPTIONS["zigzag-tpu-like"](), Path(folder))
    energy_pj, cycles = sum(one.energy_pj for one in found), sum(one.cycles for one in found)
    print(f"energy {energy_pj:,.2f} pJ, published {PUBLISHED_PJ:,.2f}: {energy_pj / PUBLISHED_PJ - 1:+.2%}")
    print(f"latency {cycles:,.1f} cycles, published {PUBLISHED_CYCLES:,.1f}: {cycles / PUBLISHED_CYCLES - 1:+.2%}")
    print(f"{len(layers)} layers in {perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
