"""One line of the report."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, but not as well, or not for long."""
    FAIL = "fail"
    SKIPPED = "skipped"
    """Nothing to look at, or what it rests on has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, what to do."""

    name: str
    status: Status
    found: str
    advice: str = ""
    """A sentence; empty if there is nothing to do."""


def passed(name: str, found: str) -> Check:
    """Return a check that is well."""
    return Check(name=name, status=Status.OK, found=found)


def warned(name: str, found: str, advice: str) -> Check:
    """Return a check that works, with a weakness."""
    return Check(name=name, status=Status.WARN, found=found, advice=advice)


def failed(name: str, found: str, advice: str) -> Check:
    """Return a check that did not pass."""
    return Check(name=name, status=Status.FAIL, found=found, advice=advice)


def skipped(name: str, found: str) -> Check:
    """Return a check that was not made, with the reason."""
    return Check(name=name, status=Status.SKIPPED, found=found)
