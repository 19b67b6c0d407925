"""One design being tried, between what is known of it and what it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from search_spaces.design import Design
from search_spaces.foresight import Foresight, WhyMeasured
from search_spaces.network import Network
from search_spaces.objectives import DEVICE_METRICS, SYMBOLIC_METRICS, Outcome, Provenance, TrialState
from search_spaces.spec import SearchSpec, StepSpec
from workers.appraise import Details, count_activations, measure
from workers.hardware.base import Deployed
from workers.limits import missed_limits
from workers.splits import Split
from workers.workbench import Workbench


@dataclass
class Attempt:
    """What is known so far. `foresight` is what the device's cost model says, if there is one."""

    spec: SearchSpec
    values: dict[str, float]
    foresight: Foresight | None
    details: Details = field(default_factory=lambda: {"stage_s": {}})
    sources: dict[str, Provenance] = field(default_factory=dict)
    rungs: list[Mapping[str, float]] = field(default_factory=list)

    @property
    def is_predicted(self) -> bool:
        """Whether a prediction stands for what the device would tell."""
        return Provenance.PREDICTED in self.sources.values()

    def predict(self) -> None:
        """Take the prediction, where it is enough for now: the design surely meets its limits, or surely misses one."""
        if self.foresight is None:
            return
        self.details["prediction"] = self.foresight.told()
        if self.foresight.why is None:
            self.values[self.foresight.metric] = self.foresight.value
            self.sources[self.foresight.metric] = Provenance.PREDICTED

    def count(self, bench: Workbench, design: Design, network: Network, model: bytes, split: Split) -> Deployed:
        """Count what travels between operators, where the spec wants it. Raises `FloatingPointError`."""
        activations = count_activations(bench, design, network, model, split, self.details)
        self.values |= activations.values
        return Deployed(network, model, activations.coded_bits)

    def measure(self, bench: Workbench, design: Design, deployed: Deployed) -> None:
        """Ask the device what the spec wants to know of it."""
        told = measure(bench, design, deployed, self.details, self.spec.device_metrics)
        self.values |= told
        self.sources |= {one["metric"]: Provenance(one["provenance"]) for one in self.details.get("measurements", ())}

    def deserves_measuring(self) -> bool:
        """Whether a design that was predicted and scored may be on the front: then its prediction is not enough."""
        foresight = self.foresight
        if foresight is None or not foresight.may_join(self.values, self.spec.objectives):
            return False
        self.foresight = replace(foresight, why=WhyMeasured.FRONT)
        self.details["prediction"] = self.foresight.told()
        return True

    @property
    def may_miss_on_device(self) -> bool:
        """Whether a limit is judged by what the device has yet to tell, and that is not changed by training."""
        asked = {limit.metric for limit in self.spec.limits} & DEVICE_METRICS
        return not self.is_predicted and bool(asked & self._lasting)

    @property
    def _lasting(self) -> frozenset[str]:
        """What is not changed by training."""
        return SYMBOLIC_METRICS if self.spec.why_maps else SYMBOLIC_METRICS | DEVICE_METRICS

    def note_rung(self, step: StepSpec, values: Mapping[str, float]) -> None:
        """Note what it is worth at a step before the full evaluation; no values where it cannot be ranked."""
        self.rungs.append(values)
        self.details.setdefault("rungs", []).append({**step.model_dump(), "values": dict(values)})

    def missed(self, *, is_final: bool = True) -> Outcome | None:
        """The end of it, if a limit is missed by what is known; before the full evaluation by what will not change."""
        limits = [limit for limit in self.spec.limits if is_final or limit.metric in self._lasting]
        reason = missed_limits(limits, self.values)
        return self.end(TrialState.INFEASIBLE, reason) if reason else None

    def end(self, state: TrialState, reason: str = "") -> Outcome:
        return Outcome(state, self.values, reason, self.details, self.sources, tuple(self.rungs))
