"""Options and Hypothesis profiles of all tests.

pytest                                   deterministic, quick: profile dev
pytest --hypothesis-profile=ci           deterministic, longer
pytest --hypothesis-profile=explore      new random cases each time, long; prints a blob that replays a failure
pytest --rewrite-golden                  writes what happens now into tests/golden; read the difference
"""

import pytest
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "base", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# Explaining a failure reruns it many times over; the shrunk example is explanation enough.
_PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink]
settings.register_profile(
    "dev", settings.get_profile("base"), derandomize=True, max_examples=40, phases=_PHASES
)
settings.register_profile(
    "ci", settings.get_profile("base"), derandomize=True, max_examples=200, phases=_PHASES
)
settings.register_profile("explore", settings.get_profile("base"), max_examples=2000)
settings.load_profile("dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write what happens now into tests/golden instead of comparing; read the difference before you commit it",
    )
