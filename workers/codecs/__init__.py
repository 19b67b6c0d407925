"""Codecs of activation maps: real bits, lossless, some hundred megabytes a second."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.activation_codes import ActivationCode, CodecName
from workers.codecs.base import Codec, DamagedStreamError
from workers.codecs.exp_golomb import ExpGolombCodec
from workers.codecs.huffman import HuffmanCodec
from workers.codecs.raw import RawCodec, ZeroValueCodec

CODECS: Mapping[CodecName, type[Codec]] = {
    CodecName.RAW: RawCodec,
    CodecName.ZVC: ZeroValueCodec,
    CodecName.HUFFMAN: HuffmanCodec,
    CodecName.EG: ExpGolombCodec,
    CodecName.SEG: ExpGolombCodec,
}


def open_codec(code: ActivationCode) -> Codec:
    """What writes and reads a fitted code."""
    return CODECS[code.name](code)


__all__ = ["CODECS", "Codec", "DamagedStreamError", "open_codec"]
