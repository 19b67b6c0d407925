"""The loops over values, compiled when they are first used; only codecs that are about to read or write import this.

A stream is a sequence of bits, the first one highest, in words of 32 bits. Kernels that read take the words with two
more behind them, and the number of bits that there are; they return how many they have read, or `DAMAGED`. All whole
numbers are uint64 where bits are moved: numba makes floats of a uint64 and an int64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from workers.codecs.tables import ESCAPE, LENGTH_BITS, SYMBOL_BITS

DAMAGED = -1

_U0, _U1, _U31, _U32, _U64 = (np.uint64(number) for number in (0, 1, 31, 32, 64))
_LENGTH_BITS, _LENGTH_MASK = np.uint64(LENGTH_BITS), np.uint64(2**LENGTH_BITS - 1)
_SYMBOL_BITS, _SYMBOL_MASK = np.uint64(SYMBOL_BITS), np.uint64(2**SYMBOL_BITS - 1)
_SYMBOL = np.uint64(2**16 - 1)
_LOW_WORD = np.uint64(2**32 - 1)


@intrinsic
def _leading_zeros(_: Any, value: Any) -> Any:
    """Zeros before the first one of a uint64; 64 where there is none."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@njit(nogil=True)
def _window(words, position):
    """The next bits, from the highest on, of which at least 33 are the stream's."""
    at = position >> np.uint64(5)
    pair = (np.uint64(words[at]) << _U32) | np.uint64(words[at + _U1])
    return pair << (position & _U31)


@njit(nogil=True)
def write_codes(values, table, words):
    """The code of each value, of up to 56 bits, one behind the other. Returns the number of bits."""
    pending, filled, at = _U0, _U0, 0  # bits that are not yet in a word, the first one highest
    for value in values:
        entry = table[value]
        length, code = entry & _LENGTH_MASK, entry >> _LENGTH_BITS
        if length > _U32:
            length -= _U32
            pending |= (code >> _U32) << (_U64 - filled - length)
            filled += length
            words[at] = pending >> _U32
            full = filled >> np.uint64(5)
            at += np.int64(full)
            pending <<= full << np.uint64(5)
            filled &= _U31
            length, code = _U32, code & _LOW_WORD
        pending |= code << (_U64 - filled - length)
        filled += length
        words[at] = pending >> _U32
        full = filled >> np.uint64(5)
        at += np.int64(full)
        pending <<= full << np.uint64(5)
        filled &= _U31
    words[at] = pending >> _U32
    return at * 32 + np.int64(filled)


@njit(nogil=True)
def read_raw(words, bits, q, values):
    """Values of q bits."""
    if len(values) * q > bits:
        return DAMAGED
    width, position = np.uint64(q), _U0
    for number in range(len(values)):
        values[number] = _window(words, position) >> (_U64 - width)
        position += width
    return np.int64(position)


@njit(nogil=True)
def read_exp_golomb(words, bits, k, is_sparse, largest, values):
    """Codes of EG(k) or SEG(k). No branch is on the values: zeros come at random, and guessing wrong takes longest."""
    low, one, top, most = np.uint64(k), np.uint64(is_sparse), np.uint64(largest), np.uint64(17)
    base, end = (_U1 << low) - one, np.uint64(bits)
    position, left, at = _U0, _U32, 1
    window, coming = np.uint64(words[0]) << _U32, np.uint64(words[1])
    for number in range(len(values)):
        if position >= end:
            return DAMAGED
        is_short = np.uint64(left <= _U32)
        window |= ((coming << _U32) >> left) & (_U0 - is_short)
        left += is_short << np.uint64(5)
        at += np.int64(is_short)
        coming = np.uint64(words[at])
        if left == _U32:  # and a code may have 33 bits
            window, left, at = window | coming, _U64, at + 1
            coming = np.uint64(words[at])
        is_zero = (window >> np.uint64(63)) & one
        found = _leading_zeros(window << one)
        zeros = found & _U31
        width = zeros + _U1 + low
        value = (((window << one) << zeros) >> ((_U64 - width) & np.uint64(63))) - base
        is_coded = is_zero - _U1  # all bits, or none
        if (np.uint64(found + low > most) | np.uint64(value > top)) & is_coded:
            return DAMAGED
        values[number] = value & is_coded
        length = one + ((zeros + width) & is_coded)
        window <<= length
        left -= length
        position += length
    return np.int64(position)


@njit(nogil=True)
def read_codes(words, bits, several, table, values):
    """Codes by tables: up to three short ones at once, else any by itself."""
    end, position, number = np.uint64(bits), _U0, 0
    few, many = _U64 - np.uint64(_log2(len(several))), _U64 - np.uint64(_log2(len(table)))
    while number < len(values):
        if position >= end:
            return DAMAGED
        window = _window(words, position)
        entry = several[window >> few]
        found = np.int64(entry & np.uint64(3))
        if found and number + 3 <= len(values):
            values[number] = entry >> np.uint64(48)
            values[number + 1] = (entry >> np.uint64(32)) & _SYMBOL
            values[number + 2] = (entry >> np.uint64(16)) & _SYMBOL
            number += found
            position += (entry >> np.uint64(2)) & _LENGTH_MASK
            continue
        single = np.uint64(table[window >> many])
        length = single >> _SYMBOL_BITS
        if length == _U0:
            return DAMAGED
        values[number] = single & _SYMBOL_MASK
        number += 1
        position += length
    return np.int64(position)


@njit(nogil=True)
def read_huffman(words, bits, several, least, first, count, offset, symbols, q, values):
    """Canonical codes: up to three short ones at once, else one by the least length that its first bits can have.

    Where the next code begins does not wait for the symbol, which may be far from the processor.
    """
    end, width, position, number = np.uint64(bits), np.uint64(q), _U0, 0
    few = _U64 - np.uint64(_log2(len(several)))
    while number < len(values):
        if position >= end:
            return DAMAGED
        window = _window(words, position)
        entry = several[window >> few]
        found = np.int64(entry & np.uint64(3))
        if found and number + 3 <= len(values):
            values[number] = entry >> np.uint64(48)
            values[number + 1] = (entry >> np.uint64(32)) & _SYMBOL
            values[number + 2] = (entry >> np.uint64(16)) & _SYMBOL
            number += found
            position += (entry >> np.uint64(2)) & _LENGTH_MASK
            continue
        length = np.int64(least[window >> few])
        place = (window >> (_U64 - np.uint64(length))) - first[length]
        while place >= count[length]:
            length += 1
            if length == len(first):
                return DAMAGED
            place = (window >> (_U64 - np.uint64(length))) - first[length]
        symbol = np.uint64(symbols[offset[length] + place])
        position += np.uint64(length)
        if symbol == np.uint64(ESCAPE):
            if position + width > end:
                return DAMAGED
            symbol = _window(words, position) >> (_U64 - width)
            position += width
        values[number] = symbol
        number += 1
    return np.int64(position)


@njit(nogil=True)
def _log2(size):
    return 63 - np.int64(_leading_zeros(np.uint64(size)))


@njit(nogil=True)
def write_zero_value(values, q, words):
    """Of every 32 values their mask, then those that are not zero, in q bits each. Returns the number of bits."""
    width, pending, filled, at = np.uint64(q), _U0, _U0, 0
    kept = np.empty(33, np.uint64)
    for start in range(0, len(values), 32):
        size = min(32, len(values) - start)
        mask, found = _U0, 0
        for number in range(start, start + size):
            value = np.uint64(values[number])
            is_kept = value != _U0
            kept[found + 1] = value
            found += is_kept
            mask = (mask << _U1) | np.uint64(is_kept)
        kept[0] = mask
        length = np.uint64(size)
        for number in range(found + 1):
            pending |= kept[number] << (_U64 - filled - length)
            filled += length
            words[at] = pending >> _U32
            full = filled >> np.uint64(5)
            at += np.int64(full)
            pending <<= full << np.uint64(5)
            filled &= _U31
            length = width
    words[at] = pending >> _U32
    return at * 32 + np.int64(filled)


@njit(nogil=True)
def read_zero_value(words, bits, q, values):
    """As written; `values` must be zeros."""
    end, width, position = np.uint64(bits), np.uint64(q), _U0
    for start in range(0, len(values), 32):
        size = np.uint64(min(32, len(values) - start))
        if position + size > end:
            return DAMAGED
        mask = (_window(words, position) >> (_U64 - size)) << (_U64 - size)
        position += size
        while mask != _U0:
            if position + width > end:
                return DAMAGED
            place = _leading_zeros(mask)
            mask ^= (_U1 << np.uint64(63)) >> place
            value = _window(words, position) >> (_U64 - width)
            if value == _U0:
                return DAMAGED
            values[start + np.int64(place)] = value
            position += width
    return np.int64(position)
