"""Whether tests can run llama.cpp."""

from importlib.util import find_spec

import pytest

needs_llama = pytest.mark.skipif(
    find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed; `make llama` builds it and runs these tests",
)
