"""Submission files: what may stand in them, and finding every fault at once. Reading them is in mapping_file.py."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import Field

from knockem_dagster.containers.names import RESERVED_NAMES
from knockem_dagster.errors import Fault, InvalidInput
from knockem_dagster.mapping_file import MOST_BYTES, one_line, read_mapping, shown
from knockem_dagster.records.assays import DEFAULT_ASSAYS, AssayType, with_needs
from knockem_dagster.records.record import Value
from knockem_dagster.records.stages import OPTIONS_OF
from knockem_dagster.records.submissions import LimitsValue
from knockem_dagster.reports.wording import enumerated
from knockem_dagster.settings import RUNTIMES, RuntimeName

MOST_FAULTS = 100
"""Faults reported at once; what has more of them is no submission file."""
MOST_ENVIRONMENT_BYTES = 100_000
"""Names and values of containerEnv: Linux starts no command with a variable of 128 KiB (MAX_ARG_STRLEN)."""
LEAST_BUDGET = 50
"""Fewer competitions cannot even tell noise from effect and weigh a few sites."""
MOST_BUDGET = 10**9
FINEST_RESOLUTION = 0.01
MOST_SKELETONS = 50
_ASSAY_NAMES = [assay_type.value for assay_type in AssayType]


class SubmissionFile(Value):
    """A complete and valid submission, before its image is resolved and its sites are counted."""

    genome: str = Field(description="the genome's content; on the command line also the path of a file")
    container_image: str = Field(description="image name, or organism folder below KNOCKEM_ORGANISMS")
    container_env: dict[str, str] = Field(default_factory=dict, description="environment of every command")
    assay_types: tuple[AssayType, ...] = Field(default=DEFAULT_ASSAYS, description="what to find out")
    max_active: int = Field(default=64, description="competitions at a time")
    max_fail: int = Field(default=3, description="failed attempts allowed per competition; 1 = no retry")
    timeout_seconds: float = Field(default=60.0, description="seconds per attempt")
    user_email: str
    seed: int = Field(default=1, description="same seed, same questions")
    limits: LimitsValue = Field(default=LimitsValue(), description="of one container")
    skeletons: int = Field(default=20, description="number of skeletons to sample")
    skeleton_resolution: float = Field(
        default=0.4,
        description="smallest effect that keeps a site in a skeleton by prefix search (detection thresholds), under "
        "noise; without, it is one threshold. Finer ones cost far more than finely weighed sites do",
    )
    tolerated_untested: float = Field(default=0.05, description="share of sites that may stay untested")
    resolution: float = Field(default=0.1, description="smallest effect to be found (detection thresholds)")
    budget: int | None = Field(default=None, description="competitions that may be asked for in all; default: no limit")
    error_rate: float = Field(
        default=0.02,
        description="sites without effect that may be named, in expectation; kept, in each skeleton by prefix search",
    )
    container_runtime: Literal["auto", RuntimeName] = "auto"

    @property
    def digest(self) -> str:
        """SHA-256 over what determines the result: the same file submitted twice has the same."""
        canonical = json.dumps(self.model_dump(by_alias=True, mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def read_submission_file(data: bytes, *, folder: Path | None, sender: str | None = None) -> SubmissionFile:
    """Read and validate a submission file, YAML or JSON.

    `folder` is where a genome's path is looked up; None (an upload) means that the genome must be
    the content itself. `sender` is a known user, whose address may be left out. Raises InvalidInput with every fault:
    field, value, and what is allowed.
    """
    content = read_mapping(data)
    if sender is not None:
        content = {"userEmail": sender, **content}
    return _Checker(content, folder, sender).checked()


class _Checker:
    """Collects the faults of one file, field by field."""

    def __init__(self, content: Mapping[str, Any], folder: Path | None, sender: str | None) -> None:
        self._content = content
        self._sender = sender
        self._folder = folder
        self._faults: list[Fault] = []
        self._known = {field.alias or name: name for name, field in SubmissionFile.model_fields.items()}

    def checked(self) -> SubmissionFile:
        """Return the submission, or raise InvalidInput with all faults."""
        self._check_keys()
        values: dict[str, Any] = {}
        checks: dict[str, Callable[[Any], Any]] = {
            "genome": self._genome,
            "containerImage": self._image,
            "containerEnv": self._environment,
            "assayTypes": self._assay_types,
            "maxActive": lambda v: self._integer("maxActive", v, 1, 100_000),
            "maxFail": lambda v: self._integer("maxFail", v, 1, 1000),
            "timeoutSeconds": lambda v: self._number("timeoutSeconds", v, 0.01, 7 * 86400, "seconds"),
            "userEmail": self._email,
            "seed": lambda v: self._integer("seed", v, 0, 2**63 - 1),
            "limits": self._limits,
            "skeletons": lambda v: self._integer("skeletons", v, 2, MOST_SKELETONS),
            "skeletonResolution": lambda v: self._number("skeletonResolution", v, 0.01, 10.0, "detection thresholds"),
            "toleratedUntested": lambda v: self._number("toleratedUntested", v, 0.0, 1.0, "share of sites"),
            "resolution": lambda v: self._number("resolution", v, FINEST_RESOLUTION, 10.0, "detection thresholds"),
            "budget": lambda v: None if v is None else self._integer("budget", v, LEAST_BUDGET, MOST_BUDGET),
            "errorRate": lambda v: self._number("errorRate", v, 1e-6, 1.0, "sites"),
            "containerRuntime": self._runtime,
        }
        for key, check in checks.items():
            if key in self._content:
                values[key] = check(self._content[key])
        self._check_budget(values.get("budget"), values.get("assayTypes", DEFAULT_ASSAYS))
        if self._faults:
            number = len(self._faults)
            raise InvalidInput(f"The submission has {number} fault{'s' if number > 1 else ''}:", self._faults)
        return SubmissionFile.model_validate(values)

    def _fault(self, field: str, value: Any, allowed: str) -> None:
        self._faults.append(Fault(one_line(field), shown(value), allowed))
        if len(self._faults) == MOST_FAULTS:
            raise InvalidInput(f"The submission has at least {MOST_FAULTS} faults; these are the first:", self._faults)

    def _check_keys(self) -> None:
        for key in self._content:
            if key not in self._known:
                near = difflib.get_close_matches(str(key), self._known, n=1, cutoff=0.0)
                self._fault(str(key), self._content[key], f"there is no such key; the nearest is {near[0]}")
        for key in ("genome", "containerImage", "userEmail"):
            if key not in self._content:
                self._fault(key, None, "it is required")

    def _integer(self, field: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._fault(field, value, f"a whole number from {low} to {high} is")
            return low
        return value

    def _number(self, field: str, value: Any, low: float, high: float, unit: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            self._fault(field, value, f"a number from {low:g} to {high:g} ({unit}) is")
            return low
        return float(value)

    def _check_budget(self, budget: int | None, assay_types: Iterable[AssayType]) -> None:
        """Make sure that a budget can be kept: published procedures take what they take."""
        kept = {AssayType.NULLDIST, *(each for each, options in OPTIONS_OF.items() if "budget" in options)}
        unbounded = [each.value for each in assay_types if not with_needs({each}) <= kept]
        if budget is not None and unbounded:
            names = enumerated(unbounded)
            self._fault("budget", budget, f"no budget bounds {names}: leave the budget out, or these assay types")

    def _genome(self, value: Any) -> str:
        allowed = "the genome's content (on the command line also the path of a file that holds it) is"
        if not isinstance(value, str) or not value.strip():
            self._fault("genome", value, allowed)
            return ""
        if self._folder is None or "\n" in value or len(value) > 4096:
            return value
        try:
            path = self._folder / Path(value).expanduser()
            if path.is_file():
                if path.stat().st_size > MOST_BYTES:
                    self._fault("genome", value, f"a file of at most {MOST_BYTES} bytes is")
                    return ""
                return path.read_text(encoding="utf-8")
        except (OSError, RuntimeError, UnicodeDecodeError) as error:  # RuntimeError: ~ of an unknown user
            self._fault("genome", value, f"a file of UTF-8 text that can be read is ({error})")
            return ""
        if "/" in value or (path.suffix and " " not in value.strip() and not value.lstrip().startswith(("{", "["))):
            self._fault("genome", value, f"there is no file {path}; {allowed}")
        return value

    def _image(self, value: Any) -> str:
        if not isinstance(value, str) or not value.isprintable() or (" " in value and "/" not in value) or not value:
            self._fault("containerImage", value, "an image name or an organism folder is")
            return ""
        return value

    def _environment(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            self._fault("containerEnv", value, "a mapping of names to text is")
            return {}
        environment: dict[str, str] = {}
        for name, text in value.items():
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                self._fault("containerEnv", name, "names of environment variables are")
            elif name in RESERVED_NAMES:
                self._fault(f"containerEnv.{name}", text, "the container contract sets this name itself; use another")
            elif isinstance(text, bool) or not isinstance(text, str | int | float) or "\0" in str(text):
                self._fault(f"containerEnv.{name}", text, "text is (put it in quotes)")
            else:
                environment[name] = str(text)
        size = sum(len(f"{name}={text}".encode()) for name, text in environment.items())
        if size > MOST_ENVIRONMENT_BYTES:
            self._fault("containerEnv", value, f"at most {MOST_ENVIRONMENT_BYTES} bytes in all are; these are {size}")
        return environment

    def _assay_types(self, value: Any) -> tuple[AssayType, ...]:
        if not isinstance(value, list) or not value:
            self._fault("assayTypes", value, f"a list of {', '.join(_ASSAY_NAMES)} is")
            return ()
        chosen: list[AssayType] = []
        for name in value:
            if name not in _ASSAY_NAMES:
                near = difflib.get_close_matches(str(name), _ASSAY_NAMES, n=1, cutoff=0.0)[0]
                self._fault("assayTypes", name, f"one of {', '.join(_ASSAY_NAMES)} is; the nearest is {near}")
            elif AssayType(name) in chosen:
                self._fault("assayTypes", name, "it stands there twice; name each assay type once")
            else:
                chosen.append(AssayType(name))
        return tuple(chosen)

    def _email(self, value: Any) -> str:
        if self._sender is not None and value == self._sender:
            return self._sender
        try:
            return validate_email(value if isinstance(value, str) else "", check_deliverability=False).normalized
        except EmailNotValidError:
            self._fault("userEmail", value, "an e-mail address such as name@example.org is")
            return ""

    def _limits(self, value: Any) -> LimitsValue:
        if not isinstance(value, Mapping):
            self._fault("limits", value, "a mapping with cpus and memoryMiB is")
            return LimitsValue()
        for key in value:
            if key not in {"cpus", "memoryMiB"}:
                near = difflib.get_close_matches(str(key), ["cpus", "memoryMiB"], n=1, cutoff=0.0)[0]
                self._fault(f"limits.{key}", value[key], f"there is no such key; the nearest is {near}")
        default = LimitsValue()
        cpus = self._number("limits.cpus", value.get("cpus", default.cpus), 0.01, 1024, "CPUs")
        memory = self._integer("limits.memoryMiB", value.get("memoryMiB", default.memory_mib), 8, 1 << 22)
        return LimitsValue.model_validate({"cpus": cpus, "memory_mib": memory})

    def _runtime(self, value: Any) -> str:
        if value not in ("auto", *RUNTIMES):  # a tuple, as the value may be a list, which no set can look up
            self._fault("containerRuntime", value, f"auto, {', '.join(RUNTIMES[:-1])} or {RUNTIMES[-1]} is")
            return "auto"
        return value
