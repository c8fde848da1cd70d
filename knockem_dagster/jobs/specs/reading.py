"""From the bytes of a workflow file to its layout: formats, variables, and every fault of the keys and values."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.jobs.specs.templates import IDENTIFIER, filled_throughout, names_in
from knockem_dagster.jobs.specs.workflow_spec import WorkflowSpec
from knockem_dagster.mapping_file import MOST_ALLOWED, FileKind, one_line, read_mapping, shown, texts_in

WORKFLOW = FileKind(name="workflow file", keys="name and jobs", most_bytes=32 << 20, most_values=1_000_000)
MOST_FAULTS = 100
"""Faults told at once; there may be one for each of many jobs."""


def read_workflow_file(data: bytes, *, name: str) -> WorkflowSpec:
    """Read a workflow file: JSON5 if its name ends so, else YAML or JSON.

    Raises InvalidInput with every fault of its keys and values, or with the one that makes it unreadable.
    """
    kind = PurePath(name).suffix.lower()
    if kind == ".kdl":
        raise refused([Fault("(file)", "KDL", "YAML, JSON or JSON5 is")])
    return spec_of(read_mapping(data, WORKFLOW, "json5" if kind == ".json5" else "yaml"))


def spec_of(content: Mapping[str, Any]) -> WorkflowSpec:
    """Return the layout of a workflow. Raises InvalidInput with every fault of its keys and values."""
    variables = content.get("variables")
    if isinstance(variables, Mapping):
        content = _with_variables(content, variables)
    try:
        return WorkflowSpec.model_validate(content)
    except ValidationError as error:
        raise refused(faults_of(error)) from error


def refused(faults: list[Fault]) -> InvalidInput:
    """Return the error of a workflow with these faults, the first of them if they are many."""
    number = len(faults)
    plural = "" if number == 1 else "s"
    first = f" these are the first {MOST_FAULTS}:" if number > MOST_FAULTS else ":"
    return InvalidInput(f"The workflow has {number:,} fault{plural}{first}", faults[:MOST_FAULTS])


def faults_of(error: ValidationError, *, at: str = "", part: type[BaseModel] = WorkflowSpec) -> list[Fault]:
    """Return the faults of a part of a file that stands there."""
    return [_fault(each, at, part) for each in error.errors(include_url=False, include_context=True)]


def _fault(error: ErrorDetails, at: str, part: type[BaseModel]) -> Fault:
    place = error["loc"]
    field = at + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in place)
    field = field.lstrip(".")
    value = shown(error["input"])
    match error["type"]:
        case "extra_forbidden":
            known = _fields_at(part, place[:-1])
            near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.0)
            allowed = f"there is no such key; the nearest is {near[0]}" if near else "there is no such key"
        case "missing":
            value, allowed = "null", "it is required"
        case "value_error":
            allowed = str(error.get("ctx", {}).get("error", error["msg"]))
        case _:
            allowed = one_line(error["msg"][:1].lower() + error["msg"][1:], most=MOST_ALLOWED)
    return Fault(one_line(field), value, allowed)


def _fields_at(part: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the keys of what stands at this place within a part of a file."""
    for key in place:
        if isinstance(key, str) and key in part.model_fields:
            part = next(_models_in(part.model_fields[key].annotation), part)
    return [field.alias or name for name, field in part.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _with_variables(content: Mapping[str, Any], variables: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Return the content with its variables filled in. Raises InvalidInput when a name is unknown, or stands twice."""
    parameters = set(_parameter_names(content))
    faults: list[Fault] = []
    values: dict[str, str] = {}
    for name, value in variables.items():
        where = f"variables.{one_line(str(name))}"
        if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
            faults.append(Fault(where, shown(name), "a name of letters, digits and underscores is"))
        elif name in parameters:
            faults.append(Fault(where, shown(name), "a parameter has that name; use another"))
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            faults.append(Fault(where, shown(value), "text is"))
        elif list(names_in(str(value))):
            faults.append(Fault(where, shown(value), "text without names in braces is; put them together where used"))
        else:
            values[name] = str(value)
    rest = {key: value for key, value in content.items() if key != "variables"}
    known = {*values, *map(str, variables), *parameters}
    unknown = dict.fromkeys(name for text in texts_in(rest) for name in names_in(text) if name not in known)
    allowed = "a variable or a parameter of that name is needed"
    faults += [Fault(f"{{{name}}}", shown(name), allowed) for name in unknown]
    if faults:
        raise refused(faults)
    return {key: filled_throughout(value, values) for key, value in rest.items()}


def _parameter_names(content: object) -> Iterator[str]:
    """Yield the names of all parameters, wherever they are declared."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key == "parameters" and isinstance(value, Mapping):
                yield from map(str, value)
            else:
                yield from _parameter_names(value)
    elif isinstance(content, list):
        for value in content:
            yield from _parameter_names(value)
