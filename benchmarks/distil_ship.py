"""Puts a trained draft into the package: packs it and writes its card.

    .venv/bin/python benchmarks/distil_ship.py --draft RUN/draft-NAME --evaluation EVALUATION.json --name smollm2-135m-draft

EVALUATION.json is what `distil_eval.py --json` says of the packed draft, so run this twice: `--only-pack FILE` first.
The card tells what the draft was made from, how, by which command, and what it is worth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

from edge.distillation.compact import SUFFIX, pack_draft
from edge.distillation.draft_reading import check_draft
from edge.drafters.distilled import SHIPPED

MOST_BYTES = 30_000_000
BEGIN = ("paceline", "distil", "--target")
CATEGORIES = "| answers to | tokens | first | within 4 | at temperature 1, coupled |\n| --- | --- | --- | --- | --- |\n"


def commands(record: dict[str, Any], *, text_tokens: int) -> list[str]:
    """What makes such a draft again, one training after the other, and packs it."""
    stages = [record["training"]]
    while (before := stages[0]["continue_from"]) is not None:
        stages.insert(0, before)
    lines: list[str] = []
    for number, stage in enumerate(stages):
        if "practice" in stage:
            # Its training follows from the one before, see `--practice-tokens`.
            before = lines[-1].replace(" --only train", "")
            tokens = stage["practice"]["num_tokens"]
            lines.append(f"{before} --only practice --practice-tokens {tokens}")
        else:
            lines.append(_command(record, stage, number=number, text_tokens=text_tokens))
    last = [stage for stage in stages if "practice" not in stage]
    words = [*BEGIN, record["target"], "--out", "FOLDER", "--student", f"step{len(last) - 1}"]
    if len(last) < len(stages):
        words += ["--practice-tokens", str(stages[-1]["practice"]["num_tokens"])]
    return [*lines, shlex.join([*words, "--only", "pack"])]


def _command(
    record: dict[str, Any], stage: dict[str, Any], *, number: int, text_tokens: int
) -> str:
    settings = stage["training"]
    words = [*BEGIN, record["target"], "--out", "FOLDER", "--threads", "1"]
    words += [
        "--seed",
        str(settings["seed"]),
        "--scripts-per-shard",
        str(record["text"]["scripts_per_shard"]),
    ]
    if not number:
        words += ["--write-tokens", str(text_tokens)]
    words += ["--outputs", str(stage["num_outputs"]), "--fit-tokens", str(stage["fit_tokens"])]
    words += ["--student", f"step{number}"]
    if number:
        words += ["--only", "train", "--continue-from", f"FOLDER/draft-step{number - 1}"]
    words += ["--train-tokens", str(settings["num_tokens"]), "--rate", str(settings["rate"])]
    words += ["--batches-per-step", str(settings["batches_per_step"])]
    words += ["--bits", str(settings["bits"] or "none")]
    for layer in record["layers"]:
        words += ["--layers", str(layer)]
    return shlex.join(words)


def figures(evaluation: dict[str, Any]) -> str:
    """Rows of the table: temperature 0, and the coupled draws of temperature 1."""
    cold, hot = evaluation["temperature_0"], evaluation["temperature_1"]
    rows = [
        f"| {name.replace('_', ' ')} | {row['positions']} | {row['within'][0]:.2f} | {row['within'][3]:.2f} | "
        f"{hot[name]['coupled']:.2f} |"
        for name, row in cold.items()
    ]
    return CATEGORIES + "\n".join(rows)


def card(
    name: str,
    record: dict[str, Any],
    evaluation: dict[str, Any],
    *,
    content: bytes,
    text_tokens: int,
) -> str:
    """The model card of a file with this content."""
    layers = ", ".join(map(str, record["layers"]))
    bits = record["training"]["training"]["bits"]
    newline = "\n"
    return f"""# {name}

A draft model for {record["target"]} (SmolLM2-135M-Instruct): guesses what it says next, for speculative decoding with Paceline.
Not a model to talk to. Use it with `--draft {name}`.

- **What it is**: layers {layers} of the target, fitted to do the work of those left out between them, then trained. It can say
  {record["training"]["num_outputs"]:,} of the target's 49,152 tokens; the target says the others itself.
- **File**: {len(content) / 1e6:.1f} MB, SHA-256 `{hashlib.sha256(content).hexdigest()}`, made with Paceline {record["version"]}. Layers and the embeddings of tokens that it can say at {bits} bits with a scale for 32 weights, the
  embeddings of all other tokens at 3; norms in float32. Trained with weights rounded like that. No tokenizer: it is the target's.
- **Data**: {text_tokens:,} tokens, most written by the target itself (invented prompts of many kinds and its answers, laws of 24
  tokens kept), the rest licensed text on the machine that it read: Python's library and reference (PSF) and descriptions of
  installed packages (MIT, BSD, Apache-2.0, PSF). No prompt of the evaluation below; no text that shares 13 words in a row with one.
- **Seed**: {record["training"]["training"]["seed"]}, for text and training. One thread of a CPU.
- **Licence**: Apache-2.0, as SmolLM2-135M-Instruct.

Made by

```sh
{newline.join(commands(record, text_tokens=text_tokens))}
```

with `--exclude` in the first command for the questions of Spec-Bench and of HumanEval, on which it is measured. The text depends on the licensed files of the machine, so these
commands make a draft like this one, not the same bytes. It saw each token about four times: some two hours of training on a core shared with others. What a GPU would take is
estimated in docs/distil.md, which also tells where the time goes; none was there.

Target's token among the draft's guesses, on the target's answers to prompts that neither was trained on (`benchmarks/distil_eval.py`,
packed draft):

{figures(evaluation)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path)
    parser.add_argument("--text-tokens", type=int, default=0)
    parser.add_argument("--name", default="smollm2-135m-draft")
    parser.add_argument("--only-pack", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.only_pack is not None:
        print(f"{pack_draft(arguments.draft, arguments.only_pack) / 1e6:.2f} MB")
        return
    record = check_draft(arguments.draft)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{arguments.name}{SUFFIX}"
        size = pack_draft(arguments.draft, file)
        if size > MOST_BYTES:
            raise SystemExit(f"{size} bytes; at most {MOST_BYTES} may be shipped")
        content = file.read_bytes()
    evaluation = json.loads(arguments.evaluation.read_text())
    SHIPPED.mkdir(exist_ok=True)
    (SHIPPED / f"{arguments.name}{SUFFIX}").write_bytes(content)
    text = card(
        arguments.name, record, evaluation, content=content, text_tokens=arguments.text_tokens
    )
    (SHIPPED / f"{arguments.name}.md").write_text(text, encoding="utf-8")
    print(f"{arguments.name}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
