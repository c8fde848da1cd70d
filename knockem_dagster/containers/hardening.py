"""What a container may do: the engine's description of a container, with everything shut that can be.

container-contract: no network, read-only root with a tmpfs, an unprivileged user, no capabilities, no
new privileges, limits on memory, CPU and processes, and labels that tell whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from knockem_dagster.containers.owners import current_owner
from knockem_dagster.containers.runtime import ContainerSpec

NOBODY = "65534:65534"
OWNER_LABEL = "knockem.owner"
SUBMISSION_LABEL = "knockem.submission"
DEFAULT_ENVIRONMENT = {"HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}


def describe_container(spec: ContainerSpec, command: Sequence[str], *, image_user: str) -> dict[str, Any]:
    """Return the body of the engine's create call. `image_user` is the USER its image sets, or empty.

    The image's entry point is not used: the contract's commands are run as they are. The engine keeps
    no log, since output is read as it comes and one container can write gigabytes.
    """
    return {
        "Image": spec.image.digest,
        "Entrypoint": [command[0]],
        "Cmd": list(command[1:]),
        "User": image_user if is_unprivileged(image_user) else NOBODY,
        "Env": [f"{name}={value}" for name, value in {**DEFAULT_ENVIRONMENT, **spec.environment}.items()],
        "Labels": {OWNER_LABEL: str(current_owner()), SUBMISSION_LABEL: spec.submission_id},
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": True,  # when we die its standard input ends, and a serving command with it
        "Tty": False,
        "NetworkDisabled": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_configuration(spec),
    }


def is_unprivileged(user: str) -> bool:
    """Tell whether the USER of an image is certainly not root."""
    name = user.partition(":")[0].strip()
    return name not in ("", "root") and not (name.isdecimal() and int(name) == 0)


def _host_configuration(spec: ContainerSpec) -> Mapping[str, Any]:
    memory = spec.limits.memory_mib << 20
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={memory}"},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "IpcMode": "private",
        "PidsLimit": spec.limits.processes,
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": round(spec.limits.cpus * 1e9),
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "none", "Config": {}},
        "Mounts": [
            {"Type": "bind", "Source": str(mount.source), "Target": mount.target, "ReadOnly": not mount.writable}
            for mount in spec.mounts
        ],
    }
