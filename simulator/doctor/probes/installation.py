"""Looks at what is installed and at the machine."""

import contextlib
import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement

from simulator.doctor.verdicts.machine import Machine, in_gib
from simulator.doctor.verdicts.software import Package

DISTRIBUTION = "paceline"
_CGROUP = Path("/sys/fs/cgroup")


def python_specifier() -> str:
    """Return the versions of Python that our own package asks for."""
    return importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""


def packages() -> tuple[Package, ...]:
    """Return everything our own package needs, extras left out, with what is installed."""
    requirements = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ()]
    return tuple(
        Package(
            name=requirement.name,
            specifier=str(requirement.specifier),
            installed=_installed(requirement.name),
        )
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    )


def installed_at() -> datetime:
    """Return when our own package was installed, or built into its container."""
    files = importlib.metadata.files(DISTRIBUTION) or ()
    metadata = [Path(str(file.locate())) for file in files if file.name == "METADATA"]
    changed_s = metadata[0].stat().st_mtime if metadata else 0.0
    return datetime.fromtimestamp(changed_s, tz=UTC)


def machine() -> Machine:
    """Return what this machine has for us."""
    # Takes seconds to import, and may be the very thing that is missing.
    import torch  # noqa: PLC0415

    gpu = ""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = f"{properties.name}, {in_gib(properties.total_memory)}"
    return Machine(
        architecture=platform.machine(),
        num_cores=_num_cores(),
        num_threads=torch.get_num_threads(),
        available_bytes=available_bytes(),
        gpu=gpu,
    )


def available_bytes(*, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """Return the memory that can still be had: the system's, or what the container's limit leaves.

    Args:
        meminfo: Linux's own account (proc(5)).
        cgroup: folder of the control group, version 2, as a container sees its own.
    """
    found = [bytes_ for bytes_ in (_meminfo(meminfo), _below_limit(cgroup)) if bytes_ is not None]
    return min(found, default=None)


def _meminfo(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _below_limit(folder: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # no such file; or "max", which is no limit
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        return max(0, limit - int((folder / "memory.current").read_text(encoding="ascii")))
    return None


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
