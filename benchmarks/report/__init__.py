"""The report: what the methods of compression do on real data. See `__main__`."""

from benchmarks.report import activations, groups, importance, quantisation, regularisers
from benchmarks.report.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "importance": Experiment("Importance: which channels stay", importance.cells, importance.page),
    "quantisation": Experiment("Quantisation: bits, ranges and training", quantisation.cells, quantisation.page),
    "regularisers": Experiment("Range regularisation of the base", regularisers.cells, regularisers.page),
    "groups": Experiment("Groups: constant size against constant number", groups.cells, groups.page),
    "activations": Experiment("Activation maps: sparsity and codes", activations.cells, activations.page),
}
