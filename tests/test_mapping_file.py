"""Reading what a stranger wrote: whatever the bytes are, a mapping or one fault, and soon."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.errors import InvalidInput
from knockem_dagster.mapping_file import MOST_BYTES, MOST_VALUES, SUBMISSION, Syntax, one_line, read_mapping, shown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def fault_of(data: bytes) -> str:
    with pytest.raises(InvalidInput) as refused:
        read_mapping(data)
    [fault] = refused.value.faults
    assert fault.field == "(file)"
    return str(fault)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_json_is_read_as_it_was_written(content: dict[str, object]) -> None:
    for ascii_only in (True, False):
        assert read_mapping(json.dumps(content, ensure_ascii=ascii_only).encode()) == content


def test_characters_beyond_16_bits_survive_json() -> None:
    assert read_mapping(b'{"genome": "\\ud83e\\uddec"}') == {"genome": "\U0001f9ec"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": "\\ud800"}', "whole characters"),
        (b'{"\\udfff": 1}', "whole characters"),
        (b'a: ["\\ud800"]', "whole characters"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b"a: 1\na: 2\n", "line 2: the key 'a' stands twice"),
        (b"a: &x 1\nb: *x\n", "aliases"),
        (b"a: b: c", "line 1"),
        (b'{"a": 1', "line 1"),
        (b"a: \x07", "special characters"),
        (b"\xff", "UTF-8"),
        (b"", "an empty file"),
        (b"- 1\n", "list"),
        (b"[" * 5000, "recursion"),
        (b'{"a": ' + b"[" * 100_000, "recursion"),
        (b"!!python/object/apply:os.system ['true']", "constructor"),
        (b"x" * (MOST_BYTES + 1), "smaller"),
    ],
)
def test_what_is_no_mapping_is_one_line(data: bytes, words: str) -> None:
    fault = fault_of(data)
    assert words in fault
    assert "\n" not in fault


@pytest.mark.parametrize(("syntax", "others"), [("yaml", ["JSON5"]), ("json5", ["YAML"]), ("json", ["YAML", "JSON5"])])
def test_a_fault_speaks_of_no_syntax_that_was_not_asked_for(syntax: Syntax, others: list[str]) -> None:
    for data in (b'{"a": ', b'{"a": nought', b"[" * 5000):
        with pytest.raises(InvalidInput) as refused:
            read_mapping(data, SUBMISSION, syntax)
        assert "JSON" in str(refused.value)
        assert [other for other in others if other in str(refused.value)] == []


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"1, " * 400_000 + b"1]",
        b"".join(b"key%d: 1\n" % number for number in range(200_000)),
        b"a: {" + b"b: 1, " * 200_000 + b"}",
    ],
    ids=["list", "keys", "same key"],
)
def test_file_of_many_values_is_refused_before_it_is_read(data: bytes) -> None:
    assert f"more than {MOST_VALUES} values" in fault_of(data)


def test_large_genome_is_one_value() -> None:
    lines = 100_000
    assert read_mapping(b"genome: |\n" + b"  1.5\n" * lines)["genome"].count("\n") == lines


@given(st.binary(max_size=100))
def test_any_bytes_give_a_mapping_or_a_fault(data: bytes) -> None:
    try:
        read_mapping(data)
    except InvalidInput as refused:
        assert len(refused.faults) == 1


@given(JSON)
def test_shown_values_fit_in_a_line(value: object) -> None:
    assert len(shown(value)) <= 80
    assert "\n" not in shown(value)


def test_what_json_cannot_say_is_shown_by_its_type() -> None:
    assert shown({(1, 2): 3}) == "(dict)"
    assert shown(16**5000) == "(int)"
    assert one_line("two\n  lines") == "two lines"
