"""The same seed gives the same log, to the byte: in another process, with other hashes of strings, on other threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness.model_world import digests, save_pair

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
sys.path[:0] = ["tests"]
import torch
from harness.model_world import digests
torch.set_num_threads(int(sys.argv[1]))  # the tests' own models have set it to 1
print(json.dumps([hash("a"), torch.get_num_threads(), digests((sys.argv[2], sys.argv[3]))]))
"""


@pytest.mark.slow
def test_a_log_is_the_same_in_any_process(tmp_path: Path) -> None:
    pair = save_pair(tmp_path)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(threads), *pair],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for hash_seed, threads in (("0", 1), ("1", 2))
    ]
    own = digests(pair)
    assert len(set(own)) == len(own)
    told = []
    for child in children:
        output, errors = child.communicate(timeout=120.0)
        assert child.returncode == 0, errors
        told.append(json.loads(output.splitlines()[-1]))
    # This process is the third: its hashes are random unless somebody has set a seed.
    assert len({name_hash for name_hash, _, _ in told}) == 2
    assert [threads for _, threads, _ in told] == [1, 2]
    assert torch.get_num_threads() == 1
    assert [found for _, _, found in told] == [own] * len(told)
