"""How many bits a value of an activation map takes in each code. The streams themselves are in `workers.codecs`.

Every code here gives each value a number of bits of its own, so that a map's histogram tells exactly what the map takes
and no map has to be coded for that. A code is fitted to the histogram of some maps and then used for any: no value is
without a code.

Codes: raw; zero-value compression, a mask bit for each value and the raw non-zero ones (Rhu et al., HPCA 2018);
Huffman; exponential-Golomb EG(k) (Teuhola, 1978); sparse exponential-Golomb SEG(k), with one bit for zero (Georgiadis,
CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
"""Bits of each value, (2^q,)."""

MOST_BITS = 16
"""Of a value."""
LONGEST_HUFFMAN_CODE = 32
_BITS_PER_LISTED_SYMBOL = 24  # the symbol in 16, its length in 8
_BITS_OF_K = 8


class CodecName(StrEnum):
    """How activation maps travel between operators and memory."""

    NONE = "none"  # as the operators compute them: floats in 32 bits, integers in their own
    RAW = "raw"  # rounded to q bits
    ZVC = "zvc"
    HUFFMAN = "huffman"
    EG = "eg"
    SEG = "seg"


@dataclass(frozen=True, eq=False)
class ActivationCode:
    """A code that was fitted to a histogram.

    Attributes:
        name: of the codec.
        lengths: bits of each value, (2^q,), at least 1.
        k: of EG and SEG.
        table: of Huffman, the length of each value's own code, 0 where it has none, (2^q,).
        escape: of Huffman, the length of the code that comes before a raw value that has no code of its own; 0 where
            each has one.
    """

    name: CodecName
    lengths: Lengths
    k: int | None = None
    table: Lengths | None = field(default=None, repr=False)
    escape: int = 0

    @property
    def bits(self) -> int:
        """The q of its values."""
        return len(self.lengths).bit_length() - 1

    @property
    def side_bits(self) -> int:
        """What a decoder has to be told once, whatever it decodes."""
        if self.table is not None:
            return _BITS_PER_LISTED_SYMBOL * (int(np.count_nonzero(self.table)) + 1)
        return 0 if self.k is None else _BITS_OF_K

    def count_bits(self, counts: NDArray[np.int64]) -> int:
        """Bits of maps with this histogram, (2^q,), without what fills up their last bytes."""
        return int(np.asarray(counts, np.int64) @ self.lengths)


def fit_code(name: CodecName, counts: NDArray[np.int64]) -> ActivationCode:
    """The code of this kind that is shortest for maps with the histogram `counts`, (2^q,), q from 1 to 16.

    Raises:
        ValueError: the histogram has another size or negative numbers, or there is nothing to fit (`none`).
    """
    found = np.asarray(counts)
    sizes = {2**bits for bits in range(1, MOST_BITS + 1)}
    if found.ndim != 1 or len(found) not in sizes or found.dtype.kind not in "iu":
        raise ValueError(f"a histogram has whole numbers of 2 to 2^{MOST_BITS} values, not {found.dtype}{found.shape}")
    if (found < 0).any():
        raise ValueError("a histogram has no negative numbers")
    if name not in _FIT:
        raise ValueError(f"{name} is no code; fit one of {', '.join(_FIT)}")
    return _FIT[name](found.astype(np.int64))


def entropy_bits(counts: NDArray[np.int64]) -> float:
    """Shannon's bound in bits for each value: what no code of single values goes below that was fitted to them."""
    present = counts[counts > 0] / max(1, counts.sum())
    return float(-(present * np.log2(present)).sum())


def raw_lengths(bits: int) -> Lengths:
    return np.full(2**bits, bits, np.int64)


def zero_value_lengths(bits: int) -> Lengths:
    """Together n + q nnz: the mask has a bit for each value."""
    lengths = np.full(2**bits, 1 + bits, np.int64)
    lengths[0] = 1
    return lengths


def exp_golomb_lengths(k: int, bits: int) -> Lengths:
    """EG(k): v = floor(x / 2^k) + 1 behind as many zeros as it has further bits, then the k low bits of x."""
    v = (np.arange(2**bits) >> k) + 1
    return 2 * bit_length(v) - 1 + k


def sparse_exp_golomb_lengths(k: int, bits: int) -> Lengths:
    """SEG(k): 1 for zero, else 0 and EG(k) of x - 1.

    SEG(1) is EG(0), bit for bit: a fit over all k has tried the plain code that spends one bit on zero.
    """
    return np.concatenate([np.ones(1, np.int64), 1 + exp_golomb_lengths(k, bits)[:-1]])


def huffman_lengths(counts: NDArray[np.int64]) -> Lengths:
    """Length of the code of each symbol in an optimal prefix code (Huffman, 1952), (symbols,).

    A symbol that does not occur has 0, and so has one that is alone.

    Whatever is merged weighs at least as much as the two lightest together. So all that is not heavier than those is
    merged in pairs at once, in few rounds whatever the number of symbols.
    """
    symbols = np.flatnonzero(counts)
    symbols = symbols[np.argsort(counts[symbols], kind="stable")]
    weights, nodes = counts[symbols].astype(np.int64), np.arange(len(symbols))
    rounds: list[tuple[int, NDArray[np.int64]]] = []  # the number of the first node that is made, and pairs of nodes
    made = len(symbols)
    while len(weights) > 1:
        light = int(np.searchsorted(weights, weights[0] + weights[1], side="right")) // 2 * 2
        rounds.append((made, nodes[:light].reshape(-1, 2)))
        sums, names = weights[:light].reshape(-1, 2).sum(axis=1), made + np.arange(light // 2)
        made += light // 2
        weights, nodes = np.concatenate([weights[light:], sums]), np.concatenate([nodes[light:], names])
        order = np.argsort(weights, kind="stable")
        weights, nodes = weights[order], nodes[order]
    depth = np.zeros(max(made, 1), np.int64)
    for first, pairs in reversed(rounds):
        depth[pairs] = depth[first : first + len(pairs), None] + 1
    lengths = np.zeros(len(counts), np.int64)
    lengths[symbols] = depth[: len(symbols)]
    return lengths


def bit_length(values: NDArray[np.int64]) -> Lengths:
    """Of whole numbers below 2^53."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def _fit_raw(counts: NDArray[np.int64]) -> ActivationCode:
    return ActivationCode(CodecName.RAW, raw_lengths(_bits_of(counts)))


def _fit_zero_value(counts: NDArray[np.int64]) -> ActivationCode:
    return ActivationCode(CodecName.ZVC, zero_value_lengths(_bits_of(counts)))


def _fit_exp_golomb(counts: NDArray[np.int64]) -> ActivationCode:
    return _best_k(CodecName.EG, counts)


def _fit_sparse_exp_golomb(counts: NDArray[np.int64]) -> ActivationCode:
    return _best_k(CodecName.SEG, counts)


def _best_k(name: CodecName, counts: NDArray[np.int64]) -> ActivationCode:
    lengths = _lengths_by_k(name, _bits_of(counts))
    k = int((lengths @ counts).argmin())
    return ActivationCode(name, lengths[k], k)


@lru_cache
def _lengths_by_k(name: CodecName, bits: int) -> Lengths:
    """(q + 1, 2^q): a larger k makes all codes longer."""
    of_k = exp_golomb_lengths if name is CodecName.EG else sparse_exp_golomb_lengths
    lengths = np.stack([of_k(k, bits) for k in range(bits + 1)])
    lengths.flags.writeable = False
    return lengths


def _fit_huffman(counts: NDArray[np.int64]) -> ActivationCode:
    """Values that were not seen share an escape before their q raw bits.

    It is taken to be as frequent as values that were seen once are together (Good, Biometrika 1953): of 16 bits many
    values are not seen in some hundred small maps.
    """
    bits, unseen = _bits_of(counts), max(1, int((counts == 1).sum()))
    is_complete = bool((counts > 0).all())
    table = _limited(np.append(counts, 0 if is_complete else unseen))
    escape = 0 if is_complete else max(1, int(table[-1]))
    lengths = np.where(counts > 0, table[:-1], escape + bits)
    return ActivationCode(CodecName.HUFFMAN, lengths, table=table[:-1], escape=escape)


def _limited(counts: NDArray[np.int64]) -> Lengths:
    """Huffman's lengths, of counts made more alike until no code is too long, which takes very rare values."""
    lengths = huffman_lengths(counts)
    while lengths.max() > LONGEST_HUFFMAN_CODE:
        counts = (counts + 1) // 2
        lengths = huffman_lengths(counts)
    return lengths


def _bits_of(counts: NDArray[np.int64]) -> int:
    return len(counts).bit_length() - 1


_FIT: Mapping[CodecName, Callable[[NDArray[np.int64]], ActivationCode]] = {
    CodecName.RAW: _fit_raw,
    CodecName.ZVC: _fit_zero_value,
    CodecName.HUFFMAN: _fit_huffman,
    CodecName.EG: _fit_exp_golomb,
    CodecName.SEG: _fit_sparse_exp_golomb,
}
