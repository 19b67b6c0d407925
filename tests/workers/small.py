"""A network that learns digits in a second."""

from search_spaces.network import InputContract, Network, Node, Op


def small_network(channels: int = 16) -> Network:
    nodes = (
        Node("image", Op.INPUT),
        Node("conv", Op.CONV, ("image",), channels, (3, 3), (1, 1), (1, 1, 1, 1)),
        Node("norm", Op.BATCH_NORM, ("conv",)),
        Node("relu", Op.RELU, ("norm",)),
        Node("conv2", Op.CONV, ("relu",), channels, (3, 3), (2, 2), (1, 1, 1, 1)),
        Node("norm2", Op.BATCH_NORM, ("conv2",)),
        Node("relu2", Op.RELU, ("norm2",)),
        Node("flat", Op.FLATTEN, ("relu2",)),
        Node("classifier", Op.LINEAR, ("flat",), 10, bias=True),
    )
    return Network("small", InputContract((1, 8, 8), (0.3,), (0.4,)), nodes, "classifier")
