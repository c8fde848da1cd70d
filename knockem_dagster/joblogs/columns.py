"""The columns of a member's rows: from bytes to the types of the lake, and which rows are wrong in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from knockem_dagster.joblogs.members import LARGEST_QUANTITY, LONGEST_NAME, LONGEST_TEXT, STORED, Kind

LARGEST_ID = 10**18 - 1
Mask = NDArray[np.bool_]
Checked = tuple[pa.Array, Mask | None]
"""A column in its type of the lake, and which of its rows are wrong, if any; what stands there is of no meaning."""

# How what can be cast looks. Some days that look so do not exist.
_LOOKS = {
    pa.int64(): r"^[0-9]{1,18}$",
    pa.float64(): r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$",
    pa.timestamp("us"): r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[ T]"
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?$",
}
_STAND_INS = {pa.string(): b"", pa.int64(): b"0", pa.float64(): b"0", pa.timestamp("us"): b"1970-01-01 00:00:00"}
_UNKNOWN_SIZES = pa.array([b"-1", b"None", b""])


def read_as(kind: Kind, *, carefully: bool) -> pa.DataType:
    """Return the type as which a column is parsed. Only carefully can what is no number be told."""
    if kind in (Kind.TEXT, Kind.NAME):
        return pa.dictionary(pa.int32(), pa.binary())
    return pa.float64() if kind is Kind.QUANTITY and not carefully else pa.binary()


def checked(column: pa.Array, kind: Kind) -> Checked:
    """Return a column in its type of the lake, and what is wrong with it."""
    return _CHECKS[kind](column)


def any_of(*masks: Mask | None) -> Mask | None:
    """Return where any of these holds; None for nowhere."""
    there = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(there) if there else None


def _id(column: pa.Array) -> Checked:
    return _cast(column, pa.int64())


def _quantity(column: pa.Array) -> Checked:
    number, no_number = (column, None) if pa.types.is_floating(column.type) else _cast(column, pa.float64())
    values = number.to_numpy()
    return number, any_of(no_number, _where(~((values >= 0) & (values <= LARGEST_QUANTITY))))


def _size(column: pa.Array) -> Checked:
    is_unknown = pc.call_function("is_in", [column], pc.SetLookupOptions(_UNKNOWN_SIZES))
    number, wrong = _quantity(pc.call_function("if_else", [is_unknown, pa.scalar(b"0"), column]))
    return pc.call_function("if_else", [is_unknown, pa.scalar(None, number.type), number]), wrong


def _time(column: pa.Array) -> Checked:
    naive, no_time = _cast(column, pa.timestamp("us"))
    return naive.cast(STORED[Kind.TIME]), no_time


def _text(column: pa.DictionaryArray, *, longest: int = LONGEST_TEXT) -> Checked:
    words, no_text = _cast(column.dictionary, pa.string())
    is_long = pc.call_function("binary_length", [words]).to_numpy(zero_copy_only=False) > longest
    has_nul = pc.call_function("match_substring", [words], pc.MatchSubstringOptions("\0"))
    wrong = any_of(no_text, _where(has_nul.to_numpy(zero_copy_only=False)), _where(is_long))
    found = pa.DictionaryArray.from_arrays(column.indices, words)
    return found, None if wrong is None else _where(wrong[column.indices.to_numpy()])


_CHECKS: dict[Kind, Callable[[pa.Array], Checked]] = {
    Kind.ID: _id,
    Kind.QUANTITY: _quantity,
    Kind.SIZE: _size,
    Kind.TIME: _time,
    Kind.TEXT: _text,
    Kind.NAME: partial(_text, longest=LONGEST_NAME),
}


def _where(wrong: Mask) -> Mask | None:
    return wrong if wrong.any() else None


def _cast(column: pa.Array, to: pa.DataType) -> Checked:
    """Cast all that can be cast, of bytes."""
    if not pa.types.is_timestamp(to):  # of which more can be cast than is a time
        with suppress(pa.ArrowInvalid):
            return _as_is(column, to), None
    if pa.types.is_string(to):
        wrong = np.array([not _is_text(each) for each in column.to_pylist()])
        return _as_is(_without(column, wrong, to), to), wrong
    right = pc.call_function("match_substring_regex", [column], pc.MatchSubstringOptions(_LOOKS[to]))
    wrong = ~right.to_numpy(zero_copy_only=False)
    likely = _without(column, wrong, to)
    with suppress(pa.ArrowInvalid):
        return _as_is(likely, to), _where(wrong)
    wrong |= np.array([not _is_time(each) for each in likely.to_pylist()])
    return _as_is(_without(column, wrong, to), to), wrong


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_time(value: bytes) -> bool:
    try:
        datetime.fromisoformat(value.decode())
    except ValueError:
        return False
    return True


def _without(column: pa.Array, wrong: Mask, to: pa.DataType) -> pa.Array:
    if not wrong.any():
        return column
    return pc.call_function("if_else", [pa.array(wrong), pa.scalar(_STAND_INS[to], column.type), column])


def _as_is(column: pa.Array, to: pa.DataType) -> pa.Array:
    """Cast bytes. Raises ArrowInvalid where any cannot be."""
    text = column.cast(pa.string())
    if pa.types.is_string(to):
        return text
    if pa.types.is_floating(to):  # the parser leaves such space out, too, where it reads numbers itself
        return pc.call_function("ascii_trim_whitespace", [text]).cast(to)
    found = text.cast(to)
    if pa.types.is_integer(to) and not _are_ids(text, found):
        raise pa.ArrowInvalid("some have a sign, or are hexadecimal, or too large")
    return found


def _are_ids(text: pa.Array, numbers: pa.Array) -> bool:
    digits = pc.call_function("ascii_is_decimal", [text])
    return digits.true_count == len(text) and not (numbers.to_numpy() > LARGEST_ID).any()
