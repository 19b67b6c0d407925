"""The Spec: what a user submits. Parsed once, at the edge; everything inside trusts it.

This module says what is well-formed. Whether a well-formed spec makes sense for a network, a data set
and a device is decided in `search_spaces.check`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag, model_validator

from search_spaces.activation_codes import CodecName
from search_spaces.objectives import DEVICE_METRICS, MAP_METRICS, Direction, Metric

NAME_PATTERN, METRIC_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._ -]*$", r"^[a-z][a-z0-9_]*$"
SEARCH_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=NAME_PATTERN)]
Glob = Annotated[str, Field(min_length=1, max_length=200)]
SearchId = Annotated[str, Field(pattern=SEARCH_PATTERN)]


Globs = Annotated[tuple[Glob, ...], Field(max_length=64)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Family(StrEnum):
    EFFICIENTNET_LITE0 = "efficientnet_lite0"
    INCEPTION_V3 = "inception_v3"
    MOBILENET_V1 = "mobilenet_v1"
    MOBILENET_V2 = "mobilenet_v2"
    MOBILENET_V3_SMALL = "mobilenet_v3_small"
    RESNET_18 = "resnet_18"
    RESNET_50 = "resnet_50"
    RESNET_56 = "resnet_56"
    RESNEXT_50 = "resnext_50"
    SHUFFLENET_V2 = "shufflenet_v2"
    VGG_13 = "vgg_13"


Side = Annotated[int, Field(ge=1, le=1024)]


class NetworkSpec(_Part):
    """A catalog network. `input` is (channels, height, width); the class count comes from the data set."""

    family: Family
    width: FiniteFloat = Field(default=1.0, gt=0.0, le=4.0)
    input: tuple[Side, Side, Side]
    stem_stride: Literal[1, 2] | None = Field(default=None, description="default: the family's own")

    @property
    def title(self) -> str:
        return str(self.family)


class OwnNetworkSpec(_Part):
    """A network that a user has imported under a name. It brings everything else itself."""

    name: Name

    @property
    def title(self) -> str:
        return self.name


CATALOG_TAG, OWN_TAG = "catalog network", "imported network"


def _kind_of_network(value: Any) -> str:
    is_own = "name" in value if isinstance(value, dict) else isinstance(value, OwnNetworkSpec)
    return OWN_TAG if is_own else CATALOG_TAG


AnyNetworkSpec = Annotated[
    Annotated[NetworkSpec, Tag(CATALOG_TAG)] | Annotated[OwnNetworkSpec, Tag(OWN_TAG)], Discriminator(_kind_of_network)
]


class DatasetSpec(_Part):
    name: Name


class RatioRange(_Part):
    """Pruning ratios low, low + step, ..., high. Ratios that round to one channel count are one choice."""

    low: FiniteFloat = Field(default=0.0, ge=0.0, lt=1.0)
    high: FiniteFloat = Field(ge=0.0, lt=1.0)
    step: FiniteFloat = Field(default=0.1, gt=0.0, le=1.0)
    layers: Globs = ("*",)
    exclude: Globs = ()

    @model_validator(mode="after")
    def _ordered(self) -> RatioRange:
        if self.high < self.low:
            raise ValueError("high must be at least low")
        if (self.high - self.low) / self.step > 1000:
            raise ValueError("step makes more than 1,000 ratios; make it larger")
        return self


class PrecisionChoices(_Part):
    choices: tuple[str, ...] = Field(min_length=1, max_length=64)
    scope: Literal["block", "layer"] = "block"
    layers: Globs = ("*",)
    exclude: Globs = ()


class BitChoices(_Part):
    choices: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(min_length=1, max_length=32)
    layers: Globs = ("*",)
    exclude: Globs = ()


class GroupSizeChoices(_Part):
    """G, channels per group, of depthwise and grouped convs. G = 1 is depthwise; larger G mixes channels.

    Of scope `network` it is one G for all of them (E2GC).
    """

    choices: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(min_length=1, max_length=32)
    scope: Literal["layer", "network"] = "layer"
    layers: Globs = ("*",)
    exclude: Globs = ()

    @model_validator(mode="after")
    def _of_all_layers(self) -> GroupSizeChoices:
        if self.scope == "network" and (self.layers, self.exclude) != (("*",), ()):
            raise ValueError("scope network is of all layers that have groups; leave out `layers` and `exclude`")
        return self


class GroupCountChoices(_Part):
    """g, the number of groups, one for all depthwise and grouped convs of the network (FgGC)."""

    choices: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(min_length=1, max_length=32)


class MethodChoices(_Part):
    """Methods, one of which each design is made by; the uniform baseline by the first."""

    choices: tuple[Name, ...] = Field(min_length=1, max_length=32)


class SpaceSpec(_Part):
    prune_ratio: RatioRange | None = None
    precision: PrecisionChoices | None = None
    weight_bits: BitChoices | None = None
    activation_bits: BitChoices | None = None
    group_size: GroupSizeChoices | None = None
    groups: GroupCountChoices | None = None
    importance: MethodChoices | None = None
    calibration: MethodChoices | None = None
    activation_codec: MethodChoices | None = None


MetricName = Annotated[str, Field(max_length=40, pattern=METRIC_PATTERN)]
"""One of `Metric`, or of a score that is installed; which there are is checked later."""


class ObjectiveSpec(_Part):
    metric: MetricName
    direction: Direction
    device: Name | None = None

    @model_validator(mode="after")
    def _device_where_needed(self) -> ObjectiveSpec:
        if self.metric in DEVICE_METRICS and self.device is None:
            raise ValueError(f"{self.metric} needs `device`: the name of the device that tells it")
        return self


class LimitSpec(_Part):
    metric: MetricName
    max: FiniteFloat | None = None
    min: FiniteFloat | None = None
    device: Name | None = None

    @model_validator(mode="after")
    def _bounded(self) -> LimitSpec:
        if (self.max is None) == (self.min is None):
            raise ValueError("give exactly one of `max` and `min`")
        if self.metric in DEVICE_METRICS and self.device is None:
            raise ValueError(f"{self.metric} needs `device`: the name of the device that tells it")
        return self


BASE = "base"


class BudgetLimitSpec(_Part):
    """A limit by a share: at most so much of what the base itself takes, or takes in one precision everywhere."""

    metric: MetricName
    at_most: FiniteFloat = Field(gt=0.0, le=100.0)
    relative_to: Annotated[str, Field(max_length=20)] = Field(default=BASE, description="base, or a precision: w8a8")
    device: Name | None = None

    @model_validator(mode="after")
    def _device_where_needed(self) -> BudgetLimitSpec:
        if self.metric in DEVICE_METRICS and self.device is None:
            raise ValueError(f"{self.metric} needs `device`: the name of the device that tells it")
        return self


class SamplerName(StrEnum):
    """The samplers that come with Espalier; others may be installed."""

    AUTO = "auto"  # see `search_spaces.choose_sampler`
    UNIFORM = "uniform"
    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"
    NSGA2 = "nsga2"
    GP = "gp"
    GREEDY = "greedy"
    DDPG = "ddpg"
    EVOLUTION = "evolution"


class GreedySpec(_Part):
    """Of the sampler `greedy`."""

    probe_share: FiniteFloat = Field(
        default=0.5, ge=0.0, le=1.0, description="of the trials, that change one decision alone"
    )


class DdpgSpec(_Part):
    """Settings of the sampler `ddpg`. Defaults are those of AMC and HAQ, whose published code agrees on most."""

    hidden: int = Field(default=300, ge=4, le=1024, description="units of each of two hidden layers")
    actor_learning_rate: FiniteFloat = Field(default=1e-4, gt=0.0, le=0.1)
    critic_learning_rate: FiniteFloat = Field(default=1e-3, gt=0.0, le=0.1)
    discount: FiniteFloat = Field(default=1.0, ge=0.0, le=1.0)
    soft_update: FiniteFloat = Field(default=0.01, gt=0.0, le=1.0, description="share, tau")
    batch: int = Field(default=64, ge=1, le=512, description="transitions of an update")
    updates_per_step: int = Field(default=1, ge=1, le=16)
    replay_episodes: int = Field(default=100, ge=1, le=2000)
    warm_up_trials: int | None = Field(default=None, ge=1, le=100_000, description="default: what fits the budget")
    noise: FiniteFloat = Field(default=0.5, ge=0.0, le=10.0, description="standard deviation of the first actions")
    noise_decay: FiniteFloat = Field(default=0.95, gt=0.0, le=1.0, description="with each trial")
    baseline_momentum: FiniteFloat = Field(default=0.5, ge=0.0, lt=1.0)


class SamplerSpec(_Part):
    name: Name = str(SamplerName.AUTO)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    population: int | None = Field(default=None, ge=2, le=1000, description="nsga2 only; default fits the budget")
    predictor: bool = Field(default=False, description="predicted scores rank what the sampler proposes")
    seed_uniform: bool = Field(default=True, description="tell the sampler the uniform baseline first")
    greedy: GreedySpec | None = Field(default=None, description="options of greedy, and of no other sampler")
    ddpg: DdpgSpec | None = Field(default=None, description="ddpg only; default: as in the papers")

    @model_validator(mode="after")
    def _settings_of_the_named(self) -> SamplerSpec:
        if self.ddpg is not None and self.name != SamplerName.DDPG:
            raise ValueError(f"`ddpg` has settings of the sampler ddpg, and this is {self.name}: leave them out")
        return self


class Reconstruct(StrEnum):
    NONE = "none"
    BATCH_NORM = "batch_norm"
    LEAST_SQUARES = "least_squares"


class Estimator(StrEnum):
    """What stands in for the gradient of rounding, and which steps are learned."""

    STE = "ste"  # steps stay as they were calibrated
    PACT = "pact"  # learns where activations are clipped
    LSQ = "lsq"  # learns the steps of weights and activations
    EWGS = "ewgs"  # LSQ with gradients scaled by how far a value is from its level


class ImportanceName(StrEnum):
    """The importances that come with Espalier; others may be installed."""

    L1 = "l1"
    L2 = "l2"
    FILTER_L2 = "filter_l2"
    LOSS = "loss"
    BIASED_LOSS = "biased_loss"
    GRASP = "grasp"
    GRADIENT_NORM = "gradient_norm"
    BATCH_NORM_SCALE = "batch_norm_scale"
    RANDOM = "random"


GRADIENT_IMPORTANCES = frozenset(
    {ImportanceName.LOSS, ImportanceName.BIASED_LOSS, ImportanceName.GRASP, ImportanceName.GRADIENT_NORM}
)
"""Those that need the loss's gradient, which nothing that is kept as it is lets through."""


class Calibration(StrEnum):
    """How the range of an activation is told from the values seen, and the end of a grid from a channel's weights."""

    MIN_MAX = "min_max"
    PERCENTILE = "percentile"  # the 0.1% and 99.9% quantiles of a sample of positions
    MSE = "mse"  # the range of the least squared error
    KL = "kl"  # the range that keeps most of the distribution; weights reach their peak


class Optimizer(StrEnum):
    SGD = "sgd"  # with Nesterov momentum
    ADAMW = "adamw"


class Schedule(StrEnum):
    """How the learning rate goes over the whole training."""

    ONE_CYCLE = "one_cycle"  # up to the peak over the first quarter, then down to zero along a cosine
    COSINE = "cosine"  # from the peak down to zero: for weights that are already good
    CONSTANT = "constant"
    STEP = "step"  # a tenth after half of the steps, a hundredth after three quarters


class RegulariserName(StrEnum):
    """What is asked of the weights of a base while it is trained; the first three are R2's."""

    L_INF = "l_inf"  # the largest magnitude
    MARGIN = "margin"  # a learned bound, and what lies outside of it
    SOFT_MIN_MAX = "soft_min_max"  # the range by a softmax of learned temperature
    KURE = "kure"  # the distance of the kurtosis from a uniform distribution's


class RegulariserSpec(_Part):
    name: RegulariserName
    weight: FiniteFloat = Field(default=0.01, gt=0.0, le=100.0)


class RecipeSpec(_Part):
    """How the base is trained, where that is not as usual for the data set and the family."""

    epochs: FiniteFloat | None = Field(default=None, gt=0.0, le=1000.0)
    learning_rate: FiniteFloat | None = Field(default=None, gt=0.0, le=10.0)
    optimizer: Optimizer = Optimizer.SGD
    schedule: Schedule = Schedule.ONE_CYCLE
    regulariser: RegulariserSpec | None = None
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class DistillationSpec(_Part):
    """Learning from the base's outputs while fine-tuning; labels have the rest of the weight."""

    temperature: FiniteFloat = Field(default=4.0, gt=0.0, le=100.0)
    weight: FiniteFloat = Field(default=0.5, ge=0.0, le=1.0)


class QuantisationAwareSpec(_Part):
    """Training through the rounding of whatever computes in integers; without epochs there is none."""

    epochs: FiniteFloat = Field(default=0.0, ge=0.0, le=100.0)
    estimator: Estimator = Estimator.LSQ
    learning_rate: FiniteFloat = Field(default=0.003, gt=0.0, le=1.0, description="of Adam")


class FinalistsSpec(_Part):
    """What is done to the best designs, and to the best uniform ones, before they are scored on `confirm`."""

    top: int = Field(default=5, ge=0, le=100)
    finetune_epochs: FiniteFloat = Field(default=0.0, ge=0.0, le=100.0)
    learning_rate: FiniteFloat = Field(default=0.01, gt=0.0, le=10.0)
    quantisation_aware: QuantisationAwareSpec = QuantisationAwareSpec()


class Measure(StrEnum):
    """When a device is asked that has a cost model."""

    WHERE_IT_MATTERS = "where_it_matters"  # near a limit, on the front, and one trial in ten
    ALWAYS = "always"


class StepSpec(_Part):
    """What a trial is scored on, and trained for, at one step of its evaluation: images and epochs in all so far."""

    score_images: int = Field(ge=16, le=100_000)
    finetune_epochs: FiniteFloat = Field(default=0.0, ge=0.0, le=100.0)


class RungsSpec(_Part):
    """The cheap steps before the full evaluation, and who goes on from each: see `search_spaces.rungs`."""

    keep: FiniteFloat | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="share of the trials of a step that goes on, by rank; without it go on who may add to the front",
    )
    least: int = Field(default=6, ge=2, le=10_000, description="trials to judge by before any is stopped at a step")
    steps: tuple[StepSpec, ...] = Field(min_length=1, max_length=8, description="the full evaluation comes after them")


class EvaluationSpec(_Part):
    reconstruct: Reconstruct = Reconstruct.LEAST_SQUARES
    importance: Name = str(ImportanceName.L1)
    calibration: Calibration = Calibration.MIN_MAX
    bias_correction: bool = False
    activation_codec: CodecName = CodecName.NONE
    calibration_images: int | None = Field(default=None, ge=16, le=10_000, description="default: 500, or all there are")
    score_images: int | None = Field(default=None, ge=16, le=100_000, description="default: 2,000, or all there are")
    finetune_epochs: FiniteFloat = Field(default=0.0, ge=0.0, le=100.0)
    learning_rate: FiniteFloat = Field(default=0.01, gt=0.0, le=10.0)
    distillation: DistillationSpec | None = None
    activation_l1: FiniteFloat = Field(default=0.0, ge=0.0, le=1.0)
    quantisation_aware: QuantisationAwareSpec = QuantisationAwareSpec()
    finalists: FinalistsSpec = FinalistsSpec()
    measure: Measure = Measure.WHERE_IT_MATTERS
    rungs: RungsSpec | None = None

    @property
    def steps(self) -> tuple[StepSpec, ...]:
        """What a trial goes through; the last is all that this part asks."""
        full = StepSpec(score_images=self.most_score_images, finetune_epochs=self.finetune_epochs)
        return (*(() if self.rungs is None else self.rungs.steps), full)

    @property
    def most_calibration_images(self) -> int:
        """As many are used, or all that there are."""
        return self.calibration_images or USUAL_CALIBRATION_IMAGES

    @property
    def fine_tunes(self) -> bool:
        """Whether any weights are trained on: of each trial or of finalists."""
        return self.finetune_epochs > 0 or self.finalists.finetune_epochs > 0

    @property
    def most_score_images(self) -> int:
        """As many are used, or all that there are."""
        return self.score_images or USUAL_SCORE_IMAGES


USUAL_CALIBRATION_IMAGES, USUAL_SCORE_IMAGES = 500, 2000


MOST_TRIALS = 100_000


class PlateauSpec(_Part):
    """No more trials once the hypervolume has grown by less than a share over the last so many of the sampler's."""

    trials: int = Field(default=20, ge=1, le=MOST_TRIALS)
    improvement: FiniteFloat = Field(default=0.01, gt=0.0, le=1.0)


class BudgetSpec(_Part):
    trials: int = Field(default=60, ge=1, le=MOST_TRIALS)
    wall_time_s: FiniteFloat | None = Field(default=None, gt=0.0)
    evaluator_s: FiniteFloat | None = Field(default=None, gt=0.0)
    failure_share: FiniteFloat = Field(default=0.5, ge=0.0, le=1.0)
    plateau: PlateauSpec | None = None
    concurrency: int = Field(default=1, ge=1, le=1000)


class SearchSpec(_Part):
    name: Name
    network: AnyNetworkSpec
    dataset: DatasetSpec
    space: SpaceSpec
    objectives: tuple[ObjectiveSpec, ...] = Field(min_length=1, max_length=4)
    limits: tuple[LimitSpec, ...] = Field(default=(), max_length=16)
    budget_limits: tuple[BudgetLimitSpec, ...] = Field(default=(), max_length=16)
    sampler: SamplerSpec = SamplerSpec()
    recipe: RecipeSpec = RecipeSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    budget: BudgetSpec = BudgetSpec()
    warm_start: tuple[SearchId, ...] = Field(default=(), max_length=16, description="ids of searches to begin with")

    @model_validator(mode="after")
    def _objectives_differ(self) -> SearchSpec:
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) != len(metrics):
            raise ValueError("each objective needs a metric of its own: leave out those that come again")
        return self

    @property
    def judged_metrics(self) -> frozenset[str]:
        """What the objectives and limits are of."""
        return frozenset(part.metric for part in self.judged)

    @property
    def device_metrics(self) -> frozenset[Metric]:
        """What the objectives and limits want to be told by the device."""
        return frozenset(map(Metric, self.judged_metrics & DEVICE_METRICS))

    @property
    def judged(self) -> tuple[ObjectiveSpec | LimitSpec | BudgetLimitSpec, ...]:
        """All that a design is judged by."""
        return (*self.objectives, *self.limits, *self.budget_limits)

    @property
    def why_maps(self) -> str:
        """The first part that needs activation maps counted, as a JSON pointer; empty where none does."""
        if self.evaluation.activation_codec is not CodecName.NONE:
            return "/evaluation/activation_codec"
        if self.space.activation_codec is not None:
            return "/space/activation_codec"
        judged: dict[str, tuple[ObjectiveSpec | LimitSpec, ...]]
        judged = {"objectives": self.objectives, "limits": self.limits}
        pointers = (
            f"/{name}/{number}/metric"
            for name, parts in judged.items()
            for number, part in enumerate(parts)
            if part.metric in MAP_METRICS
        )
        return next(pointers, "")

    @property
    def device(self) -> str | None:
        """The device that the objectives and limits name, if any."""
        for part in self.judged:
            if part.device is not None:
                return part.device
        return None
