"""The pytest plugin in runs of pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

# Imported here, so that runs within this process do not import them again and again.
import simulator.testing.relayed
import simulator.testing.virtual  # noqa: F401 - see above

pytest_plugins = ["pytester"]

STRICT = "[pytest]\nstrict = true\naddopts = --strict-markers\nfilterwarnings = error\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A user's project with strict settings."""
    pytester.makeini(STRICT)
    return pytester


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ('"moon"', "network: profile 'moon' is not known"),
        ("rtt='80'", "network: rtt: "),
        ("lose=0.01", "network: key 'lose' is not known; did you mean 'loss'"),
        ("time='later'", "time: got 'later'"),
        ("seed=-3", "seed: got -3"),
    ],
)
def test_a_wrong_marker_fails_its_test_with_a_sentence(
    project: pytest.Pytester, marker: str, told: str
) -> None:
    project.makepyfile(f"""
        import pytest

        @pytest.mark.network({marker})
        def test_wrong(pair):
            pass

        def test_right(pair):
            assert pair.seed == 0
    """)
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([f"*{told.replace('[', '[[]')}*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*During handling of the above exception*")


def test_a_failing_test_tells_its_seed_and_what_happened(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        @pytest.mark.network("lte", seed=range(5, 7))
        def test_fails(pair):
            pair.edge.ask("Hello")
            pair.link.cut()
            assert pair.seed == 5, "no luck"
    """)
    result = project.runpytest_inprocess("-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_fails?seed5? PASSED*",
            "*::test_fails?seed6? FAILED*",
            "*- network -*",
            "lte; seed 6",
            "again: pytest '*::test_fails?seed6?' --network-seed 6",
            "virtual time *; the last events:",
            '{*"place":"edge0","kind":"answered","tokens":64}',
            '{*"place":"edge0-verifier0","kind":"cut"}',
        ]
    )
    again = project.runpytest_inprocess("-k", "seed6", "--network-seed", "6")
    again.assert_outcomes(failed=1)


def test_the_seed_of_the_command_line_holds_instead_of_the_marker_s(
    project: pytest.Pytester,
) -> None:
    project.makepyfile("""
        import pytest

        pytestmark = pytest.mark.network("starlink", seed=3)

        def test_events(pair):
            pair.edge.ask("Hello")
            print("SEED", pair.seed, hash(tuple(event.line() for event in pair.events)) or "", end="!")
            lines = [event.line() for event in pair.events]
            import zlib
            print("SUM", zlib.crc32("".join(lines).encode()), end="!")
    """)

    def told(*arguments: str) -> tuple[str, str]:
        out = project.runpytest_inprocess("-s", *arguments).stdout.str()
        return out.split("SEED ")[1].split()[0], out.split("SUM ")[1].split("!")[0]

    assert told() == told("--network-seed", "3")
    seed, events = told("--network-seed", "11")
    assert seed == "11"
    assert events != told()[1]
    assert told("--network-seed", "random")[0].isdigit()


def test_a_seed_that_is_none_is_refused(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--network-seed", "lucky")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--network-seed: got 'lucky', expected a whole number*"])


def test_workers_of_xdist_are_handed_the_seed_that_was_drawn(project: pytest.Pytester) -> None:
    # What pytest-xdist does: its hook on the one side, `workerinput` on the other, and the command line on both.
    project.makeconftest("""
        import types
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_configure(config):
            node = types.SimpleNamespace(config=config, workerinput={})
            (plugin,) = (one for name, one in config.pluginmanager.list_name_plugin() if name == "paceline")
            plugin.pytest_configure_node(node)
            drawn = config.getoption("network_seed")
            config.workerinput = node.workerinput
            config.option.network_seed = "random"
            plugin.pytest_configure(config)
            assert config.getoption("network_seed") == drawn != "random"
            del config.workerinput
    """)
    project.makepyfile("def test_seed(pair): assert pair.seed < 2**31")
    project.runpytest_inprocess("--network-seed", "random").assert_outcomes(passed=1)


def test_one_body_runs_in_both_times(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        @pytest.mark.network("wan", time=["virtual", "real"])
        def test_both(paceline_network):
            assert paceline_network.time in ("virtual", "real")

        @pytest.mark.network("wan", time="virtual")
        def test_link(link):
            pass
    """)
    result = project.runpytest_inprocess("-v")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*test_both?virtual? PASSED*", "*test_both?real? PASSED*", "*time: got virtual*"]
    )


def test_a_marker_of_the_same_name_that_is_not_ours_is_left_alone(
    project: pytest.Pytester,
) -> None:
    project.makepyfile("""
        import pytest

        @pytest.mark.network
        def test_bare():
            pass

        @pytest.mark.network("needs the internet", retries=3)
        def test_foreign():
            pass

        @pytest.fixture
        def link():
            return "of the project's own"

        def test_own_fixture(link):
            assert link == "of the project's own"
    """)
    project.runpytest_inprocess().assert_outcomes(passed=3)


LEFT = """
    import socket
    import threading
    import pytest

    kept = {}

    @pytest.mark.network(rtt="20ms")
    def test_fails_with_everything_open(link, pair):
        server = kept["server"] = socket.create_server(("127.0.0.1", 0))
        way = link(server.getsockname())
        kept["port"] = way.port
        kept["client"] = socket.create_connection((way.host, way.port), timeout=5)
        pair.edge.submit("Hello").wait_for_tokens(3)
        pair.after("1h", pair.link.cut)
        raise RuntimeError("half way")

    def test_nothing_is_left():
        with kept["server"], kept["client"] as client:
            try:
                assert client.recv(1) == b""  # closed
            except ConnectionResetError:
                pass  # or so
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", kept["port"]), timeout=5)
        assert "paceline-testing" not in [thread.name for thread in threading.enumerate()]
"""


def test_what_a_failing_test_leaves_open_is_closed(project: pytest.Pytester) -> None:
    project.makepyfile(LEFT)
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(['*"place":"link0","kind":"listening"*'])


def test_a_fixture_of_a_wider_scope_is_three_lines(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest
        from simulator.testing import network

        @pytest.fixture(scope="module")
        def shared():
            with network("metro", seed=4) as made:
                yield made.world(edges=2)

        def test_one(shared):
            assert shared.edges[0].ask("Hello").text == shared.target_text("Hello")

        def test_two(shared):
            assert shared.now_s > 0
    """)
    project.runpytest_inprocess().assert_outcomes(passed=2)


@pytest.mark.slow
def test_the_plugin_is_loaded_by_name_and_brings_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_bare.py").write_text(
        "import sys\n\ndef test_bare(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('paceline')\n"
        "    heavy = {'numpy', 'torch', 'grpc', 'aiohttp', 'asyncio'} & set(sys.modules)\n"
        "    assert not heavy - {'asyncio'}, heavy\n"
    )
    arguments = (
        "-p",
        "no:anyio",
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:cov",
        "-p",
        "no:cacheprovider",
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *arguments, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
