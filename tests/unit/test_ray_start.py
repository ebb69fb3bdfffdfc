"""A Ray that does not come up."""

from typing import Any

import psutil
import pytest

from paceline.errors import ConfigError

pytest.importorskip("ray", reason="Ray is an extra")

from cloud.ray_program import _begin


class Start:
    """Fails as often as told."""

    def __init__(self, error: Exception, *, times: int) -> None:
        self.error, self.times, self.count = error, times, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count <= self.times:
            raise self.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "times", "count", "works"),
    [
        (Exception("timed out during startup"), 1, 2, True),
        (Exception("timed out during startup"), 2, 3, True),
        (Exception("timed out during startup"), 3, 3, False),
        (RuntimeError("Timed out waiting for file gcs_server_port"), 1, 2, True),
        (RuntimeError("Timed out waiting for file gcs_server_port"), 3, 3, False),
        (RuntimeError("called twice"), 1, 1, False),
        (ConnectionError("nobody there"), 1, 1, False),
    ],
)
def test_what_came_too_late_is_tried_again(
    error: Exception, times: int, count: int, works: bool
) -> None:
    start = Start(error, times=times)
    if works:
        _begin(start)
    else:
        with pytest.raises(ConfigError, match="--ray: Ray cannot be started"):
            _begin(start)
    assert start.count == count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")
def test_what_a_start_that_failed_has_begun_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray  # noqa: PLC0415 - takes seconds
    from ray._private import services  # noqa: PLC0415

    find = services.get_node
    mine = psutil.Process()
    before, begun = set(mine.children()), set[psutil.Process]()

    def too_late(*arguments: Any, **words: Any) -> Any:
        if not begun:
            begun.update(set(mine.children()) - before)
            raise Exception("The current node timed out during startup")  # noqa: TRY002 - as Ray does
        return find(*arguments, **words)

    monkeypatch.setattr(services, "get_node", too_late)
    try:
        _begin(lambda: ray.init(address="local", num_cpus=1, include_dashboard=False))
        assert begun, "nothing had begun"
        assert not [process for process in begun if process.is_running()]
        node = ray._private.worker._global_node
        running = [info.process for infos in node.all_processes.values() for info in infos]
    finally:
        ray.shutdown()
    for (
        process
    ) in running:  # Ray kills them and leaves them to whoever collects its garbage, which warns
        process.wait(20.0)
