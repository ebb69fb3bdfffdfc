"""The text is the target's own: the benchmark that shows it for forty prompts, in small, over real processes and links."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness.models import save_tiny

ROOT = Path(__file__).parents[2]


def run(folder: Path, kind: str, *options: str) -> dict[str, Any]:
    """Run the benchmark; it fails by itself on an unexplained difference or a setting that exercised nothing."""
    output = folder / "result.json"
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/identity.py", kind, *options),
            *("--output", str(output), "--references", str(folder / "references")),
        ],
        cwd=ROOT,
        env={"PYTHONPATH": "tests", "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300.0,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(output.read_text())
    return result


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["greedy", "sampled"])
def test_every_pair_of_settings_gives_the_text_of_a_plain_loop(kind: str, tmp_path: Path) -> None:
    """A tiny random target: three drafters, three windows, three round trips or both races and eight at once."""
    target = save_tiny(tmp_path / "target")
    options = ["--target", str(target), "--prompts", "18", "--max-tokens", "40"]
    options += ["--prompt-characters", "120", "--min-step", "0.02"]
    # Among eight tokens even a random model repeats itself, so that prompt lookup has something to find.
    result = run(tmp_path, kind, *options, "--prefer", *(str(token) for token in range(40, 48)))
    assert result["unexplained"] == []
    assert len(result["cells"]) == 9


@pytest.mark.slow
@pytest.mark.real
def test_smollm2_in_float32_writes_what_transformers_writes(tmp_path: Path) -> None:
    """The real target, one prompt a cell; those dealt to prompt lookup ask for repetition."""
    prompts = tmp_path / "prompts.jsonl"
    given = (ROOT / "tests/data/prompts/prompts.jsonl").read_text().splitlines()[:9]
    lines = [json.loads(line) for line in given]
    for line, words in zip(
        lines, ("red green blue", "one two three four", "do re mi"), strict=False
    ):
        line["prompt"] = f"Say this again, exactly: {words} {words} {words} {words} {words} {words}"
    prompts.write_text("\n".join(json.dumps(line) for line in lines))
    options = ["--prompts-file", str(prompts), "--prompt-characters", "160"]
    result = run(tmp_path, "greedy", *options, "--prompts", "9", "--max-tokens", "24")
    assert result["identical"] == 9
