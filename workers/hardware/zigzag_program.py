"""A program that asks ZigZag what layers take: `python -m workers.hardware.zigzag_program`, JSON in, JSON lines out.

ZigZag (Mei et al., IEEE Transactions on Computers 2021) looks for the best mapping of a layer to an accelerator. It
prints, logs and writes where it is, and all of that is of the whole process: hence a process of its own. Its stages are
put together here without those that save and draw.

Its multipliers cost the same energy whatever the bits. Here that is linear in weight bits times activation bits, with
the accelerator's own figure for 8 by 8: an array multiplier has a cell for each pair of bits, and Accelergy's Aladdin
multiplier scales so (Wu et al., ICCAD 2019). Cycles of the array do not depend on bits; those of memories do.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Generator
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import yaml
from zigzag.cost_model.cost_model import CostModelEvaluation, CostModelEvaluationABC
from zigzag.hardware.architecture.imc_array import ImcArray
from zigzag.mapping.temporal_mapping import TemporalMappingType
from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
from zigzag.stages.main import MainStage
from zigzag.stages.mapping.spatial_mapping_generation import SpatialMappingGeneratorStage
from zigzag.stages.mapping.temporal_mapping_generator_stage import TemporalMappingGeneratorStage
from zigzag.stages.parser.accelerator_parser import AcceleratorParserStage
from zigzag.stages.parser.workload_parser import WorkloadParserStage
from zigzag.stages.results.reduce_stages import MinimalLatencyStage
from zigzag.stages.workload_iterator import WorkloadStage

from workers.hardware.zigzag_layers import LayerFigures, ZigzagLayer

MULTIPLIER_BITS = 8 * 8
"""What an accelerator's own energy of a multiplication is of."""


class UnsuitableAcceleratorError(ValueError):
    """The description is none of an accelerator that this program can model."""


class _EvaluationByBits(CostModelEvaluation):
    """Energy of a multiplication by the bits of its operands."""

    def calc_mac_energy_cost(self) -> None:
        super().calc_mac_energy_cost()
        bits = {str(operand): count for operand, count in self.layer.operand_precision.data.items()}
        self.mac_energy *= bits["W"] * bits["I"] / MULTIPLIER_BITS


class _StageByBits(CostModelStage):
    def run(self) -> Generator[tuple[CostModelEvaluationABC, Any], None, None]:
        if isinstance(self.accelerator.operational_array, ImcArray):
            raise UnsuitableAcceleratorError("arrays that compute in memory are not modelled")
        evaluation = _EvaluationByBits(
            accelerator=self.accelerator,
            layer=self.layer,
            spatial_mapping=self.spatial_mapping,
            spatial_mapping_int=self.spatial_mapping_int,
            temporal_mapping=self.temporal_mapping,
            access_same_data_considered_as_no_access=self.access_same_data_considered_as_no_access,
        )
        yield evaluation, None


_STAGES: list[Any] = [
    WorkloadParserStage,
    AcceleratorParserStage,
    WorkloadStage,
    MinimalLatencyStage,  # of spatial mappings
    SpatialMappingGeneratorStage,
    MinimalLatencyStage,  # of temporal mappings
    TemporalMappingGeneratorStage,
    _StageByBits,
]


def evaluate(layer: ZigzagLayer, hardware: str, mapping: str) -> LayerFigures:
    """The mapping of least latency of one layer; ZigZag's own defaults otherwise.

    Args:
        layer: as ZigZag describes workloads.
        hardware, mapping: paths of YAML files.
    """
    search: Any = MainStage(
        _STAGES,
        workload=[layer],
        accelerator=hardware,
        mapping=mapping,
        loma_lpf_limit=6,
        loma_show_progress_bar=False,
        nb_mappings_generated=3,
        access_same_data_considered_as_no_access=True,
        temporal_mapping_type=TemporalMappingType("uneven"),
    )
    ((found, _),) = search.run()
    return LayerFigures(float(found.energy_total), float(found.latency_total2))


def answer(request: dict[str, Any], out: TextIO) -> None:
    """One line for each layer, in order, as soon as it is known; or one with an error, which is the last."""
    mapping = request["mapping"] or _any_mapping()
    for layer in request["layers"]:
        line: dict[str, Any]
        try:
            line = asdict(evaluate(layer, request["hardware"], mapping))
        except (ValueError, AssertionError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            line = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(line), file=out, flush=True)  # the program's answer
        if "error" in line:
            return


def _any_mapping() -> str:
    """A mapping file that leaves everything to ZigZag, in the current folder."""
    path = Path("any.yaml")
    path.write_text(yaml.safe_dump([{"name": "default", "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"}}]))
    return str(path)


def main() -> None:
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        answer(json.load(sys.stdin), out)


if __name__ == "__main__":
    main()
