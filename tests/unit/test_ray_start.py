"""A Ray that does not come up."""

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
        (Exception("timed out during startup"), 2, 2, False),
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
