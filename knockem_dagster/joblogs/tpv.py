"""What is recommended, as a fragment of the tools.yml of the Total Perspective Vortex, which gives Galaxy's jobs their
resources. It is to be read by somebody before it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from knockem_dagster.joblogs.recommendations import Recommendation
from knockem_dagster.joblogs.sizing.rule import Rule

TOOLS_FILE = "tools.yml"
"""How a fragment is called that is kept with an instance's marts."""
GIB = 1024.0**3
"""Bytes of its unit of memory, and of sizes."""
_SECTIONS_OF_TOOL_SHED = 5
"""Of a tool's id without its version: host, repos, owner, repository, tool."""


def fragment(recommended: Sequence[Recommendation], *, name: str) -> str:
    """Return the fragment for the tools of an instance of this name of which enough is known, a rule per version."""
    lines = [f"# Recommended from the jobs of {json.dumps(name)}, for review.", *_lines(recommended)]
    return "".join(f"{line}\n" for line in lines)


def _lines(recommended: Sequence[Recommendation]) -> Iterator[str]:
    tools = [list(of_tool) for _, of_tool in groupby(recommended, key=lambda each: each.tool_id)]
    told = [of_tool for of_tool in tools if _is_known(of_tool[0])]
    yield "tools:" if told else "tools: {}"
    for whole, *versions in told:
        yield f"  {json.dumps(_pattern(whole.tool_id))}:"
        yield f"    # {_about(whole)}"
        yield from _given(whole, "    ")
        own = [each for each in versions if _is_known(each)] if len(versions) > 1 else []
        if own:
            yield "    rules:"
        for each in own:
            yield f"      # {_about(each)}"
            yield f"      - id: {json.dumps(_rule_id(each))}"
            yield f"        if: {json.dumps(f'tool.version == {json.dumps(each.tool_version)}')}"
            yield from _given(each, "        ")


def _is_known(each: Recommendation) -> bool:
    return each.memory is not None or each.cores is not None


def _given(each: Recommendation, indent: str) -> Iterator[str]:
    if each.cores is not None:
        yield f"{indent}cores: {each.cores}"
    if each.memory is not None:
        yield f"{indent}mem: {expression(each.memory.rule)}"


def expression(rule: Rule) -> str:
    """Return the memory that a rule gives, in GiB: a number, or an expression in `input_size`."""
    if not rule.depends_on_size:
        return _number(max(rule.base, rule.least) / GIB)
    power = "" if rule.power == 1 else f" ** {rule.power:.4g}"
    terms = [_number(rule.base / GIB)] if rule.base else []
    terms.append(f"{_number(rule.factor * GIB ** (rule.power - 1))} * input_size{power}")
    given = f"max({_number(rule.least / GIB)}, {' + '.join(terms)})"
    return f"min({_number(rule.most / GIB)}, {given}) if input_size else {_number(rule.otherwise / GIB)}"


def _number(value: float) -> str:
    """Return a number of three digits that is not below the value."""
    if not value or abs(value) >= 1000:
        return str(math.ceil(value))
    place = 10 ** (math.floor(math.log10(abs(value))) - 2)
    return f"{math.ceil(value / place - 1e-9) * place:.3g}"


def _about(each: Recommendation) -> str:
    told = [f"{each.jobs:,} jobs from {each.first:%Y-%m-%d} to {each.last:%Y-%m-%d}"]
    if each.failed_tries is not None:
        told += [f"{each.at_limit:.1%} at their limit", f"{each.failed_tries:.1f} failed tries expected in 100"]
    return "; ".join(told)


def _pattern(tool_id: str) -> str:
    """Return the regular expression for a tool of any version; it is matched with the beginning of an id."""
    is_of_tool_shed = len(tool_id.split("/")) == _SECTIONS_OF_TOOL_SHED
    return re.escape(tool_id).replace(r"\-", "-") + ("/.*" if is_of_tool_shed else "$")


def _rule_id(each: Recommendation) -> str:
    return f"{each.tool_id.split('/')[-1]} {each.tool_version}"
