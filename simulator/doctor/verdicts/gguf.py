"""Can llama.cpp draft with this file for this target?"""

from dataclasses import dataclass

from simulator.doctor.verdicts.check import Check, failed, passed, skipped
from simulator.doctor.verdicts.machine import in_gib

LIBRARY = "llama.cpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFinding:
    """What is known of a GGUF file that is to draft, and of what computes it."""

    name: str
    error: str = ""
    """Why it cannot be used; then nothing below but the library counts."""
    quantisation: str = ""
    num_words: int = 0
    """Ids of its vocabulary."""
    file_bytes: int = 0
    differs: str = ""
    """Why its ids mean other words than the target's; empty if they do not."""
    library: str = ""
    """Version of the library."""
    library_error: str = ""
    """Why the library cannot be used."""


def judge_file(finding: GgufFinding) -> Check:
    """Judge the file by itself."""
    if finding.error:
        return failed(
            "draft",
            finding.error,
            "Check --draft: behind llama: stands a GGUF file on this machine.",
        )
    return passed(
        "draft",
        f"{finding.name}: {finding.quantisation or 'whole weights'}, {finding.num_words} ids, "
        f"weights {in_gib(finding.file_bytes)}",
    )


def judge_words(finding: GgufFinding, *, target_error: str) -> Check:
    """Judge whether its ids mean what the target's mean."""
    if finding.error or target_error:
        return skipped("same tokenizer", "a model cannot be used")
    if finding.differs:
        return failed(
            "same tokenizer",
            finding.differs,
            "Choose a GGUF file of the target's family, or --draft lookup, which needs no model.",
        )
    return passed("same tokenizer", "each id that both have means the same word")


def judge_library(finding: GgufFinding) -> Check:
    """Judge whether there is what computes the file."""
    if finding.library_error:
        return failed(
            LIBRARY, finding.library_error, "Install it with: pip install 'paceline[llama]'."
        )
    return passed(LIBRARY, f"llama-cpp-python {finding.library}")
