"""Is this machine fit for it?"""

from dataclasses import dataclass
from datetime import datetime

from simulator.doctor.verdicts.check import Check, failed, passed, warned

GIB = 2**30
LEAST_MEMORY_BYTES = 1 * GIB
"""PyTorch and its libraries alone take about half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine has for us."""

    architecture: str
    num_cores: int
    """That this process may use."""
    num_threads: int
    """That PyTorch would use."""
    available_bytes: int | None
    """Memory that can still be had, container limits included; None: not known on this system."""
    gpu: str = ""
    """Name and memory; empty: none that PyTorch can use."""


def judge_processor(machine: Machine) -> Check:
    """Judge cores and threads."""
    found = f"{machine.num_cores} cores ({machine.architecture}), {machine.num_threads} threads for models"
    if machine.num_threads > machine.num_cores:
        return warned(
            "processor",
            found,
            f"More threads than cores slow each other down: give --threads {machine.num_cores}, or set OMP_NUM_THREADS.",
        )
    return passed("processor", found)


def judge_memory(machine: Machine) -> Check:
    """Judge what memory is left before any model is loaded."""
    if machine.available_bytes is None:
        return warned(
            "memory",
            "not known on this system",
            "See to it yourself that the models fit: 4 bytes per parameter in float32, 2 in bfloat16.",
        )
    found = f"{in_gib(machine.available_bytes)} available"
    if machine.available_bytes < LEAST_MEMORY_BYTES:
        return warned("memory", found, "End other programs, or raise the container's limit.")
    return passed("memory", found)


def judge_gpu(machine: Machine) -> Check:
    """Tell the accelerator; an edge and a small verifier do without."""
    return passed("gpu", machine.gpu or "none; models run on the CPU")


def judge_clock(now: datetime, *, installed: datetime) -> Check:
    """Judge the wall clock by something that cannot lie in the future: when Paceline was installed."""
    found = f"{now:%Y-%m-%d %H:%M} UTC"
    if now < installed:
        return failed(
            "clock",
            f"{found}, which is before Paceline was installed here ({installed:%Y-%m-%d %H:%M} UTC)",
            "Set the clock (timedatectl set-ntp true): with a wrong one every certificate looks invalid.",
        )
    return passed("clock", found)


def in_gib(num_bytes: int) -> str:
    """Return a size as people read it."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.0f} MiB"
