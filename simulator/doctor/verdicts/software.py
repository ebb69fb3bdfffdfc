"""Is what is installed new enough?"""

from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from simulator.doctor.verdicts.check import Check, failed, passed

SHOWN = ("torch", "transformers", "grpcio", "protobuf")
"""Packages whose version is told even if all is well: what a report of a bug needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package that Paceline needs."""

    name: str
    specifier: str
    """Versions that do, as in pyproject.toml: ">=7.35.1,<8"; empty for any."""
    installed: str | None
    """None: not installed."""

    @property
    def fits(self) -> bool:
        """It is there, in a version that does."""
        # A pre-release was installed on purpose.
        return self.installed is not None and SpecifierSet(self.specifier).contains(
            self.installed, prereleases=True
        )


def judge_python(version: str, *, specifier: str) -> Check:
    """Judge the interpreter.

    Args:
        version: such as "3.11.7".
        specifier: what our own package asks for.
    """
    if SpecifierSet(specifier).contains(version, prereleases=True):
        return passed("python", version)
    return failed(
        "python",
        f"{version}, expected {specifier}",
        f"Make a virtual environment with Python {specifier}, and install paceline there.",
    )


def judge_packages(packages: tuple[Package, ...]) -> Check:
    """Judge all packages together; those that do not fit are named."""
    wrong = [package for package in packages if not package.fits]
    if wrong:
        found = ", ".join(
            f"{package.name} {package.installed or 'is missing'}, expected {package.specifier or 'any'}"
            for package in wrong
        )
        wanted = " ".join(f"'{package.name}{package.specifier}'" for package in wrong)
        return failed("packages", found, f"Install them: pip install {wanted}")
    shown = [f"{each.name} {each.installed}" for each in packages if each.name in SHOWN]
    return passed(
        "packages", f"{', '.join(shown)} and {len(packages) - len(shown)} more, as needed"
    )
