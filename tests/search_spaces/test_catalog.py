"""The catalog against published counts; its structure at every size; what is coupled in it and what is free."""

import json
from dataclasses import replace

import pytest

from search_spaces.apply import structure_of
from search_spaces.build_space import build_space
from search_spaces.catalog import build_network
from search_spaces.costs import macs, parameters
from search_spaces.coupling import derive_coupling
from search_spaces.network import (
    COMPUTE_OPS,
    Network,
    Op,
    infer_shapes,
    network_digest,
    network_from_json,
    network_to_json,
)
from search_spaces.spec import Family, NetworkSpec, SpaceSpec


def catalog_network(family, side=32, *, width=1.0, channels=3, classes=10, stem_stride=None) -> Network:
    spec = NetworkSpec(family=family, width=width, input=(channels, side, side), stem_stride=stem_stride)
    return build_network(spec, classes, (0.5,) * channels, (0.5,) * channels)


def for_imagenet(family) -> Network:
    return catalog_network(family, 299 if family == Family.INCEPTION_V3 else 224, classes=1000)


def all_parameters(network: Network) -> int:
    """As papers and model cards count: with biases, and two for each channel of a batch norm."""
    shapes = infer_shapes(network)
    biases = sum(shapes[node.name][0] for node in network.nodes if node.op in COMPUTE_OPS and node.bias)
    norms = sum(2 * shapes[node.name][0] for node in network.nodes if node.op is Op.BATCH_NORM)
    return parameters(network) + biases + norms


def groups_of(network):
    return {group.name: group for group in derive_coupling(network).groups}


# Parameters and GMACs: torchvision's model cards (`num_params`, `_ops`), and its Inception-V3 less the auxiliary
# classifier's 3,326,696. Exact MACs and weights: counted once, layer by layer, on the outputs of the convs and linears
# of torchvision 0.29's and timm 1.0's networks. EfficientNet-Lite0 is timm's `tf_efficientnet_lite0`.
@pytest.mark.parametrize(
    ("family", "exact_macs", "weights", "with_norms_and_biases", "published_gmacs"),
    [
        ("mobilenet_v2", 300_774_272, 3_469_760, 3_504_872, 0.301),
        ("mobilenet_v3_small", 56_510_400, 2_525_832, 2_542_856, 0.057),
        ("resnet_18", 1_814_073_344, 11_678_912, 11_689_512, 1.814),
        ("resnet_50", 4_089_184_256, 25_502_912, 25_557_032, 4.089),
        ("resnext_50", 4_230_479_872, 24_959_680, 25_028_904, 4.230),
        ("shufflenet_v2", 144_907_992, 2_261_424, 2_278_604, 0.145),
        ("inception_v3", 5_713_216_096, 23_799_136, 27_161_264 - 3_326_696, 5.713),
        ("efficientnet_lite0", 385_187_552, 4_608_992, 4_652_008, 0.385),
    ],
)
def test_published_counts(family, exact_macs, weights, with_norms_and_biases, published_gmacs):
    network = for_imagenet(family)
    assert macs(network) == exact_macs
    assert parameters(network) == weights
    assert all_parameters(network) == with_norms_and_biases
    assert macs(network) / 1e9 == pytest.approx(published_gmacs, abs=5e-4)


def test_efficientnet_lite0_is_as_large_as_its_authors_say():
    # The TPU team's table: 4.7 M parameters and 407 M multiply-adds. Its count of the latter has 6% more than the
    # convs and the linear layer have.
    network = for_imagenet("efficientnet_lite0")
    assert all_parameters(network) / 1e6 == pytest.approx(4.7, abs=0.05)
    assert macs(network) / 1e6 == pytest.approx(407, rel=0.06)


@pytest.mark.parametrize(
    ("group_size", "gmacs", "million_weights"),
    # Derived like MobileNet-V1's reference counts of constant group size in test_costs.
    [(None, 4.230, 24.96), (4, 4.099, 23.82), (8, 4.198, 24.09), (16, 4.397, 24.63), (32, 4.794, 25.72)],
)
def test_resnext_50_with_groups_of_constant_size_has_the_reference_counts(group_size, gmacs, million_weights):
    network = for_imagenet("resnext_50")
    grouped = [node for node in network.nodes if node.groups > 1]
    assert len(grouped) == 16
    if group_size:
        network = network.with_nodes({node.name: replace(node, groups=node.channels // group_size) for node in grouped})
    assert macs(network) / 1e9 == pytest.approx(gmacs, abs=6e-4)
    assert parameters(network) / 1e6 == pytest.approx(million_weights, abs=6e-3)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    ("side", "width", "channels", "classes", "stem_stride"),
    [(224, 1.0, 3, 1000, None), (96, 0.5, 3, 2, 2), (32, 0.75, 1, 100, 1), (28, 0.25, 1, 10, None), (8, 0.1, 3, 5, 2)],
)
def test_every_family_has_a_design_space_at_every_size(family, side, width, channels, classes, stem_stride):
    network = catalog_network(family, side, width=width, channels=channels, classes=classes, stem_stride=stem_stride)
    assert infer_shapes(network)[network.output] == (classes,)
    assert network_from_json(json.loads(json.dumps(network_to_json(network)))) == network
    space, _ = build_space(network, SpaceSpec.model_validate({"prune_ratio": {"high": 0.5, "step": 0.25}}), None)
    free = [group for group in structure_of(network).coupling.groups if not group.frozen]
    assert len(space.decisions) >= 0.6 * len(free)
    frozen = {group.name: group.size for group in structure_of(network).coupling.groups if group.frozen}
    assert frozen == {"input": channels, "classifier": classes}


@pytest.mark.parametrize("family", Family)
def test_every_layer_is_in_a_block_and_no_name_means_two_things(family):
    network = catalog_network(family)
    layers = {node.name: node.block for node in network.compute_nodes()}
    outside = {node.op for node in network.nodes if not node.block}
    assert outside <= {Op.INPUT, Op.MAX_POOL, Op.GLOBAL_AVERAGE_POOL, Op.FLATTEN}
    for name, block in layers.items():
        assert block == name or block not in layers, f"{block} is a layer, and a block of another one"


@pytest.mark.parametrize(
    ("family", "digest"),
    [
        ("mobilenet_v1", "7fe09163a63325afd7c736b798a9d00ae6c6db89ab9bb59e4bb78d7e34e09c37"),
        ("resnet_56", "8fae4261adf4c1fb1047ebb0fc8f9bfa502aeeee78977086f02b65472b519143"),
        ("vgg_13", "33542e4ff74c1e370a8cd872f8085138bcbc81cc7adb114f96a99e8fe9b5f514"),
    ],
)
def test_bases_that_are_trained_already_are_found_again(family, digest):
    assert network_digest(catalog_network(family)) == digest


def shapes_before_the_head(family, side, stem_stride):
    network = catalog_network(family, side, stem_stride=stem_stride)
    pool = network.by_name()["pool"]
    return infer_shapes(network)[pool.inputs[0]][1:]


@pytest.mark.parametrize(
    ("family", "side", "stem_stride", "expected"),
    [
        ("resnet_50", 224, None, (7, 7)),
        ("resnet_50", 32, None, (1, 1)),
        ("resnet_50", 32, 1, (4, 4)),
        ("resnext_50", 32, 1, (4, 4)),
        ("resnet_18", 28, 1, (4, 4)),
        ("shufflenet_v2", 224, None, (7, 7)),
        ("shufflenet_v2", 32, 1, (4, 4)),
        ("inception_v3", 299, None, (8, 8)),
        ("inception_v3", 75, None, (1, 1)),
        ("inception_v3", 74, None, (10, 10)),
        ("inception_v3", 32, 1, (8, 8)),
        ("mobilenet_v2", 32, 1, (2, 2)),
        ("efficientnet_lite0", 224, None, (7, 7)),
    ],
)
def test_a_stem_stride_of_one_is_for_small_images(family, side, stem_stride, expected):
    assert shapes_before_the_head(family, side, stem_stride) == expected


def test_a_residual_stage_is_one_group():
    groups = groups_of(catalog_network("resnet_18"))
    assert groups["stem"].producers == ("stem", "stage1.block1.conv2", "stage1.block2.conv2")
    stage = groups["stage2.block1.conv2"]
    assert stage.producers == ("stage2.block1.conv2", "stage2.block1.shortcut", "stage2.block2.conv2")
    assert len([group for group in groups.values() if not group.frozen]) == 4 + 8


def test_inside_a_bottleneck_channels_are_free():
    groups = groups_of(catalog_network("resnet_50"))
    assert groups["stem"].producers == ("stem",)
    assert groups["stage1.block1.conv3"].producers == (
        *("stage1.block1.conv3", "stage1.block1.shortcut", "stage1.block2.conv3", "stage1.block3.conv3"),
    )
    inside = [f"stage{stage + 1}.block{block + 1}" for stage, n in enumerate((3, 4, 6, 3)) for block in range(n)]
    for name in (f"{block}.conv{number}" for block in inside for number in (1, 2)):
        assert groups[name].producers == (name,)


def test_grouped_convs_keep_multiples_of_their_number_of_groups():
    groups = groups_of(catalog_network("resnext_50"))
    for name, group in groups.items():
        assert group.multiple_of == (32 if name.endswith((".conv1", ".conv2")) else 1), name
    assert groups["stage4.block1.conv1"].size == 1024
    narrow = catalog_network("resnext_50", width=0.1)
    assert {node.channels for node in narrow.nodes if node.groups > 1} == {64, 128}, "never depthwise"


def test_linear_bottlenecks_are_coupled_along_a_stage_and_expansions_are_free():
    for family, stage in (("mobilenet_v2", range(7, 11)), ("efficientnet_lite0", range(6, 9))):
        groups = groups_of(catalog_network(family))
        projections = tuple(f"block{number}.project" for number in stage)
        assert groups[projections[0]].producers == projections
        assert groups[f"block{stage[1]}.expand"].producers == (f"block{stage[1]}.expand",)
        assert groups["head"].producers == ("head",)


def test_a_gate_is_coupled_to_what_it_gates():
    groups = groups_of(catalog_network("mobilenet_v3_small"))
    assert groups["stem"].producers == ("stem", "block1.excite")  # the first block has no expansion
    assert groups["block5.expand"].producers == ("block5.expand", "block5.excite")
    assert groups["block5.squeeze"].producers == ("block5.squeeze",)
    assert (groups["hidden"].size, groups["hidden"].frozen) == (1024, "")


def test_inside_of_a_shuffled_stage_only_the_stream_is_coupled():
    network = catalog_network("shufflenet_v2")
    groups = groups_of(network)
    for stage, blocks in ((1, 4), (2, 8), (3, 4)):
        for block in range(1, blocks + 1):
            name = f"stage{stage}.block{block}.conv1"
            assert groups[name].producers == (name,)
        stream = [group for group in groups.values() if f"stage{stage}.block1.left.pointwise" in group.producers]
        made = {name for group in stream for name in group.producers}
        assert made == {stream[0].name, *(f"stage{stage}.block{block}.conv2" for block in range(1, blocks + 1))}


def test_concatenated_branches_are_all_groups_of_their_own():
    network = catalog_network("inception_v3")
    convs = [node.name for node in network.nodes if node.op is Op.CONV]
    free = {name: group for name, group in groups_of(network).items() if not group.frozen}
    assert len(convs) == 94
    assert list(free) == convs
    assert all(group.producers == (name,) for name, group in free.items())


def test_average_pools_of_inception_count_their_padding():
    network = catalog_network("inception_v3", 299)
    nodes = network.by_name()
    pools = [node for node in network.nodes if node.op is Op.AVERAGE_POOL]
    assert len(pools) == 9
    assert all(nodes[pool.inputs[0]].op is Op.PAD and pool.padding == (0,) * 4 for pool in pools)


def test_scaled_counts_go_to_the_nearest_multiple_and_ties_go_up():
    squeezed = [node.channels for node in for_imagenet("mobilenet_v3_small").nodes if node.name.endswith(".squeeze")]
    assert squeezed == [8, 24, 64, 64, 32, 40, 72, 144, 144]
    assert infer_shapes(catalog_network("mobilenet_v2", width=0.5))["head"] == (1280, 1, 1)
