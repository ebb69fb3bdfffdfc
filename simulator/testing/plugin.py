"""The pytest plugin: a marker and three fixtures. docs/testing.md tells how to use them.

pytest loads this module in every run of whoever has Paceline installed: what takes long to import is imported where it
is used.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from paceline.errors import ConfigError, PacelineError
from simulator.testing.marker import MARKER, Description, Mark, Time, described
from simulator.testing.scene import Scene, World, told_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from simulator.testing.relayed import RelayedLinks

CASE = "paceline_network"
OPTION = "--network-seed"
RANDOM = "random"
SCENE = pytest.StashKey[Scene]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our option."""
    parser.getgroup("paceline", "networks in tests (Paceline)").addoption(
        OPTION,
        dest="network_seed",
        metavar="N",
        help=f"seed of every test's network, instead of those that its marker names; {RANDOM}: another one in each run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and settle the seed."""
    config.addinivalue_line(
        "markers",
        f'{MARKER}(network, *, time="virtual", seed=0, **keys): the network of the fixtures world, pair and link, '
        'for example "lte" or rtt="80ms", loss=0.01',
    )
    # A worker of pytest-xdist reads the command line again, and must not draw for itself.
    told: dict[str, str] = getattr(config, "workerinput", {})
    wanted = told.get(CASE) or config.getoption("network_seed")
    if CASE in told:
        config.option.network_seed = wanted
    elif wanted == RANDOM:
        import secrets  # noqa: PLC0415 - hashes and base64 with it

        config.option.network_seed = str(secrets.randbits(31))
    elif wanted is not None and not (wanted.isascii() and wanted.isdigit()):
        raise pytest.UsageError(
            f"{OPTION}: got {wanted!r}, expected a whole number from 0 on, or {RANDOM}"
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a worker of pytest-xdist."""
    seed = node.config.getoption("network_seed")
    if seed is not None:
        node.workerinput[CASE] = seed


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which seed was asked for."""
    seed = config.getoption("network_seed")
    return None if seed is None else f"paceline: {OPTION} {seed}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each time and each seed that its markers name."""
    if CASE not in metafunc.fixturenames:
        return
    try:
        description = _description(metafunc.definition)
    except ConfigError:
        return  # the fixture tells it
    times, seeds = description.times, description.seeds
    if len(times) < 2 and len(seeds) < 2:
        return
    override = _seed_option(metafunc.config)
    chosen = (seeds or (None,)) if override is None else (override,)
    cases = list(itertools.product(times or (None,), chosen))

    def named(time: Time | None, seed: int | None) -> str:
        words = [f"{time}"] if len(times) > 1 else []
        return "-".join([*words, f"seed{seed}"] if len(seeds) > 1 else words)

    ids = list(itertools.starmap(named, cases))
    metafunc.parametrize(CASE, cases, ids=ids, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the network's story in the report of a test that failed."""
    del call
    report = yield
    scene = item.stash.get(SCENE, None)
    if report.failed and scene is not None:
        try:
            told = told_scene(scene, test=item.nodeid)
        except Exception as error:  # noqa: BLE001 - it must not end the run of all tests
            told = [f"what happened cannot be told: {error!r}"]
        report.sections.append(("network", "\n".join(told)))
    return report


@pytest.fixture
def paceline_network(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """What the markers of this test say; everything made for it has ended when the test is over."""
    time, seed = getattr(request, "param", (None, None))
    try:
        scene = _scene(request, time=time, seed=seed)
    except ConfigError as error:
        raise _failed(error) from None
    request.node.stash[SCENE] = scene
    with scene:
        yield scene


@pytest.fixture
def world(paceline_network: Scene) -> Callable[..., World]:
    """Make edges, verifiers, and the marked network between them; `simulator.testing.parts.Parts` has the arguments."""
    return paceline_network.world


@pytest.fixture
def pair(paceline_network: Scene) -> World:
    """One edge and one verifier, with the marked network between them."""
    try:
        return paceline_network.world()
    except PacelineError as error:
        raise _failed(error) from None


@pytest.fixture
def link(paceline_network: Scene) -> RelayedLinks:
    """Put the marked network before a server of your own: `link("127.0.0.1:8000")` tells where to connect instead."""
    try:
        return paceline_network.links()
    except ConfigError as error:
        raise _failed(error) from None


def _failed(error: PacelineError) -> BaseException:
    """Return what fails a test with a sentence and nothing else: `pytest.fail` would tell the error's own causes, too."""
    return pytest.fail.Exception(str(error), pytrace=False)


def _scene(request: pytest.FixtureRequest, *, time: Time | None, seed: int | None) -> Scene:
    """Return the scene of a test.

    Raises:
        ConfigError: a marker is wrong.
    """
    description = _description(request.node)
    if (time is None and len(description.times) > 1) or (
        seed is None and len(description.seeds) > 1
    ):
        raise ConfigError(
            "network: got several times or seeds, expected one: the fixture was asked for by request.getfixturevalue, "
            "the marker stands at a parameter, or the test is a method of a unittest.TestCase"
        )
    if seed is None:
        override = _seed_option(request.config)
        seed = override if override is not None else next(iter(description.seeds), 0)
    return Scene(
        description,
        time=time or next(iter(description.times), None),
        seed=seed,
    )


def _description(node: pytest.Item | Any) -> Description:
    marks = node.iter_markers(MARKER)
    return described(Mark(args=mark.args, keys=mark.kwargs) for mark in marks)


def _seed_option(config: pytest.Config) -> int | None:
    text = config.getoption("network_seed")
    return None if text is None else int(text)
