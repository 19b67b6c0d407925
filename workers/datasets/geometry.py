"""How an image comes to have the height and width that a network takes. Follows `InputContract` to the pixel.

Sizes and places are those that torchvision's `Resize` and `CenterCrop` give, which most trained networks were fed by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from search_spaces.network import InputContract, Interpolation
from workers.datasets.picture import COLOUR, GREY

_RESAMPLING = {
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
}
_LARGEST_RESIZED = 16_000_000
"""Pixels of a resized image. At 224 x 224 it takes a strip of 300 to 1 to have more."""
_MODES = {1: GREY, 3: COLOUR}


@dataclass(frozen=True, slots=True)
class Window:
    """What is seen of a resized image, in its pixels.

    Attributes:
        size: (width, height) that the whole image is resized to.
        left, top: where the part that is cut out begins.
    """

    size: tuple[int, int]
    left: int
    top: int


def fit(image: Image.Image, contract: InputContract) -> Image.Image:
    """The image as a network sees it, of the contract's height, width and channels.

    A strip of any length takes no more memory than other images: where the whole of it would be too large when it is
    resized, only what is seen is computed, which may differ in rounding.

    Raises:
        ValueError: the contract has neither 1 nor 3 channels.
    """
    channels, height, width = contract.shape
    if channels not in _MODES:
        raise ValueError(f"images have 1 or 3 channels, not {channels}")
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    if image.size == (width, height):
        return image
    window = find_window(image.size, contract)
    resampling = _RESAMPLING[contract.interpolation]
    if math.prod(window.size) > _LARGEST_RESIZED:
        return image.resize((width, height), resampling, _source_box(image.size, window, width, height))
    resized = image.resize(window.size, resampling)
    return resized.crop((window.left, window.top, window.left + width, window.top + height))


def _source_box(size: tuple[int, int], window: Window, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of an image of `size` that the window shows, in the image's own pixels."""
    x_scale, y_scale = size[0] / window.size[0], size[1] / window.size[1]
    return (
        window.left * x_scale,
        window.top * y_scale,
        min((window.left + width) * x_scale, size[0]),
        min((window.top + height) * y_scale, size[1]),
    )


def find_window(size: tuple[int, int], contract: InputContract) -> Window:
    """Where the contract looks at an image of (width, height).

    The longer side is rounded down, the place of the window to the nearest, halves to the even one. Where the wanted
    part is larger than an image whose shorter side has `resize` pixels, the image is made as large as is needed.
    """
    _, height, width = contract.shape
    shorter = min(size)
    new_width, new_height = (side * contract.resize // shorter for side in size)
    if new_width < width or new_height < height:
        new_width, new_height = _cover(size, width, height)
    return Window((new_width, new_height), round((new_width - width) / 2), round((new_height - height) / 2))


def _cover(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The smallest size of the same proportions that has this width and height in it."""
    if width * size[1] >= height * size[0]:
        return width, size[1] * width // size[0]
    return size[0] * height // size[1], height
