"""From a workflow file to its single jobs, files and user data: parameters are replaced by their values.

Where the name of a job or file does not tell the combinations apart, they are one: its lists are put together. So a job
that gathers what others made names their parameters and waits for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

from pydantic import ValidationError

from knockem_dagster.errors import Fault
from knockem_dagster.jobs.specs.parameters import (
    MOST_VALUES,
    Combination,
    NotAParameter,
    Parameter,
    ParameterValue,
    combinations_of,
    values_of,
)
from knockem_dagster.jobs.specs.reading import faults_of
from knockem_dagster.jobs.specs.templates import UnknownFormat, filled, filled_throughout
from knockem_dagster.jobs.specs.workflow_spec import Expandable, FileSpec, JobSpec, UserDataSpec, WorkflowSpec
from knockem_dagster.mapping_file import one_line, shown, texts_in

MOST_CHARACTERS = 200_000_000
"""Of all jobs, files or user data of a workflow together."""
Part = TypeVar("Part", JobSpec, FileSpec, UserDataSpec)
Single_co = TypeVar("Single_co", covariant=True)
_PATTERNS = frozenset(name for name in JobSpec.LISTS if name.endswith("_regexes"))
_PLAIN = {"parameters": None, "parameter_mode": "product", "use_parameters": None}


@dataclass(frozen=True, slots=True)
class Expanded(Generic[Single_co]):
    """The single parts of one kind in the order of the file, and the faults of those that cannot be expanded."""

    parts: Sequence[Single_co]
    faults: Sequence[Fault]


def expanded_jobs(spec: WorkflowSpec) -> Expanded[JobSpec]:
    """Return the jobs that a workflow file stands for."""
    return _expanded("jobs", spec.jobs, spec.parameters or {}, _filled_job)


def expanded_files(spec: WorkflowSpec) -> Expanded[FileSpec]:
    """Return the files that a workflow file stands for."""
    return _expanded("files", spec.files, spec.parameters or {}, _filled_file)


def expanded_user_data(spec: WorkflowSpec) -> Expanded[UserDataSpec]:
    """Return the user data that a workflow file stands for."""
    return _expanded("user_data", spec.user_data, spec.parameters or {}, _filled_user_data)


def _expanded(
    kind: str,
    parts: Sequence[Part] | None,
    shared: Mapping[str, Parameter],
    fill: Callable[[Part, Combination], Part],
) -> Expanded[Part]:
    found: list[Part] = []
    faults: list[Fault] = []
    room = _Room()
    for number, part in enumerate(parts or ()):
        where = f"{kind}[{number}]"
        try:
            found += _merged(room.let_in(_single_parts(part, shared, fill)))
            if len(found) > MOST_VALUES:
                raise _TooMany
        except _Refused as error:
            faults.append(error.fault_at(where))
        except UnknownFormat as error:
            faults.append(Fault(f"{where}.name", shown(part.name), str(error)))
        except ValidationError as error:
            faults.extend(faults_of(error, at=where))
        except _TooMany:
            told = f"more than {MOST_VALUES:,}, or {MOST_CHARACTERS:,} characters"
            return Expanded((), [Fault(kind, told, "a smaller workflow is: divide it")])
    return Expanded(found, faults)


class _Room:
    """Room for MOST_CHARACTERS."""

    def __init__(self) -> None:
        self._characters = 0

    def let_in(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Give these parts on. Raises _TooMany at the first that finds no room."""
        for part in parts:
            self._characters += sum(map(len, texts_in([value for value in vars(part).values() if value is not None])))
            if self._characters > MOST_CHARACTERS:
                raise _TooMany
            yield part


class _TooMany(Exception):
    """The parts are too many, or too large, to be stored."""


class _Refused(Exception):
    """A part that cannot be expanded: the field below it, the value, and what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(allowed)
        self._field, self._value, self._allowed = field, value, allowed

    def fault_at(self, where: str) -> Fault:
        """Return the fault, of the part that stands there."""
        return Fault(f"{where}.{one_line(self._field)}", shown(self._value), self._allowed)


def _single_parts(
    part: Part, shared: Mapping[str, Parameter], fill: Callable[[Part, Combination], Part]
) -> Iterator[Part]:
    parameters = _parameters_of(part, shared)
    if not parameters:
        yield part
        return
    values: dict[str, Sequence[ParameterValue]] = {}
    for name, parameter in parameters.items():
        try:
            values[name] = values_of(parameter)
        except NotAParameter as error:
            raise _Refused(f"parameters.{name}", parameter, str(error)) from error
    try:
        combinations = combinations_of(values, part.parameter_mode)
    except NotAParameter as error:
        raise _Refused("parameters", dict(parameters), str(error)) from error
    plain = part.model_copy(update=_PLAIN)
    for combination in combinations:
        yield type(part).model_validate(vars(fill(plain, combination)))  # a name may become too long, say


def _parameters_of(part: Expandable, shared: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return the parameters of a part: those of the workflow that it uses, and its own, which come first."""
    unknown = [name for name in part.use_parameters or () if name not in shared]
    if unknown:
        raise _Refused("use_parameters", unknown[0], "a parameter of the workflow is")
    return {name: shared[name] for name in part.use_parameters or ()} | (part.parameters or {})


def _merged(parts: Iterable[Part]) -> Iterator[Part]:
    """Put those of one name together. Raises _Refused when more than their lists differ."""
    by_name: dict[str, list[Part]] = {}
    for part in parts:
        by_name.setdefault(part.name, []).append(part)
    for name, same in by_name.items():
        first = same[0]
        lists = [field for field in JobSpec.LISTS if getattr(first, field, None) is not None]
        together = {field: _union(getattr(one, field) for one in same) for field in lists}
        for one in same[1:]:
            for field in type(one).model_fields:
                if field not in lists and getattr(one, field) != getattr(first, field):
                    raise _Refused("name", name, f"one that tells combinations apart is: {field} differs between them")
        yield first.model_copy(update=together) if len(same) > 1 else first


def _union(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(lists)))


def _filled_job(job: JobSpec, values: Combination) -> JobSpec:
    texts = ("name", "command", "invocation_script", "resource_requirements", "failure_handler", "scheduler")
    changes: dict[str, object] = {
        field: filled(text, values) for field in texts if (text := getattr(job, field)) is not None
    }
    for field in JobSpec.LISTS:
        names: tuple[str, ...] | None = getattr(job, field)
        if names is not None:
            changes[field] = tuple(filled(each, values, escape=field in _PATTERNS) for each in names)
    if job.env is not None:
        changes["env"] = {name: filled(text, values) for name, text in job.env.items()}
    return job.model_copy(update=changes)


def _filled_file(file: FileSpec, values: Combination) -> FileSpec:
    identifier = None if file.identifier is None else filled(file.identifier, values)
    changes = {"name": filled(file.name, values), "path": filled(file.path, values), "identifier": identifier}
    return file.model_copy(update=changes)


def _filled_user_data(data: UserDataSpec, values: Combination) -> UserDataSpec:
    changes = {"name": filled(data.name, values), "data": filled_throughout(data.data, values)}
    return data.model_copy(update=changes)
