"""One image: from the bytes of a file, or from an array's pixels, to 8 bits of grey or of red, green and blue.

What may go wrong with an image is told here and nowhere else. Knows no archive and no network.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from service.dataset_layout import is_zip
from workers.datasets.refusal import UnreadableError

MAX_FILE_BYTES = 128 << 20
MAX_PIXELS = 64_000_000

GREY, COLOUR = "L", "RGB"
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
_GREY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})

# Sums of x and of x squared for each of 256 levels, x in [0, 1].
_LEVELS = np.linspace(0, 1, 256)
_POWERS = np.stack([_LEVELS, _LEVELS**2], axis=1)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that is ready for use.

    Attributes:
        image: upright, of mode GREY or COLOUR.
        mode: of the pixels as they were stored, in Pillow's words.
    """

    image: Image.Image
    mode: str


def read_picture(data: bytes) -> Picture:
    """Decode a file of one of six formats, told by its bytes. Of several frames the first is taken.

    An orientation that a camera has noted is applied, what is transparent is laid on white, of 16 bits 8 are kept.

    Raises:
        UnreadableError: it is no image, a damaged one, or a too large one.
    """
    with warnings.catch_warnings():
        # Pillow warns of what is checked here, and of metadata that nothing here reads.
        warnings.simplefilter("ignore")
        image = _open(data)
        try:
            image.load()
            return Picture(_bring_upright(_to_plain(image), image), image.mode)
        except UnreadableError:
            raise
        except Exception as error:  # a decoder that meets hostile bytes may raise nearly anything
            raise UnreadableError(f"is a damaged {image.format} image ({error}); save it again") from error


def picture_of(pixels: np.ndarray) -> Picture:
    """The picture of uint8 pixels, (H, W) or (H, W, C) with 1, 3 or 4 channels."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(pixels)
    return Picture(_to_plain(image), image.mode)


def picture_digest(image: Image.Image) -> int:
    """8-byte BLAKE2 of an image's mode, size and pixels: equal for equal images, whatever file they come from.

    Colours that are all grey are grey: whichever way a picture was saved, it must not be trained on and scored on.
    """
    image = _without_needless_colour(image)
    digest = hashlib.blake2b(f"{image.mode} {image.width} {image.height}\n".encode(), digest_size=8)
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "big")


def _without_needless_colour(image: Image.Image) -> Image.Image:
    if image.mode != COLOUR:
        return image
    pixels = np.asarray(image)
    is_grey = np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    return image.getchannel(0) if is_grey else image


def channel_moments(image: Image.Image) -> np.ndarray:
    """Mean and mean square of each channel's values in [0, 1], float64 (channels, 2)."""
    histogram = np.array(image.histogram(), dtype=np.float64).reshape(-1, len(_LEVELS))
    moments: np.ndarray = histogram @ _POWERS / (image.width * image.height)
    return moments


def _open(data: bytes) -> Image.Image:
    """Read the header: it is known then what the file is, and how large an image it would make."""
    if not data:
        raise UnreadableError("is empty; save it again, or take it out")
    if is_zip(data):
        raise UnreadableError("is an archive in the archive; unpack it, and pack what is in it")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"is too large ({error}); {_MAKE_SMALLER}") from error
    except Exception as error:  # a header that is hostile may raise nearly anything
        raise UnreadableError("is no PNG, JPEG, BMP, GIF, WebP or TIFF image; save it as one") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableError(f"has {image.width:,} x {image.height:,} pixels; {_MAKE_SMALLER}")
    if not image.width * image.height:
        raise UnreadableError("has no pixels; save it again, or take it out")
    return image


_MAKE_SMALLER = f"up to {MAX_PIXELS:,} pixels are read: make it smaller"


def _bring_upright(plain: Image.Image, original: Image.Image) -> Image.Image:
    try:
        orientation = original.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # metadata may be damaged in any way, and the image is fine without
        return plain
    method = _TURNS.get(orientation)
    return plain if method is None else plain.transpose(method)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _to_plain(image: Image.Image) -> Image.Image:
    """8 bits of grey, or of red, green and blue."""
    if image.mode in (GREY, COLOUR) and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise UnreadableError(f"has pixels of kind {image.mode!r}; save it with 8 or 16 bits for each channel")
    plain = GREY if image.mode in _GREY_MODES else COLOUR
    return _lay_on_white(image, plain) if image.has_transparency_data else image.convert(plain)


def _lay_on_white(image: Image.Image, plain: str) -> Image.Image:
    with_alpha = image.convert("LA" if plain == GREY else "RGBA")
    out = Image.new(plain, image.size, "white")
    out.paste(with_alpha.convert(plain), mask=with_alpha.getchannel("A"))
    return out
