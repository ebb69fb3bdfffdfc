"""In real time: `paceline cloud` and `paceline edge` as processes, and 80 ms between them."""

import pytest

from simulator.testing import RealWorld

PROMPT = "Why do riders draft?"


@pytest.mark.network(rtt="80ms", time="real")
def test_an_edge_outlives_its_link_and_its_verifier(pair: RealWorld) -> None:
    calm = pair.edge.ask(PROMPT, max_tokens=128)
    assert calm.statistics.time_to_first_token_s >= 0.080

    asking = pair.edge.submit(PROMPT, max_tokens=128)
    asking.wait_for_tokens(10)
    pair.link.cut()
    pair.wait("300ms")
    pair.link.heal()
    assert asking.answer().text == calm.text

    asking = pair.edge.submit(PROMPT, max_tokens=128)
    asking.wait_for_tokens(10)
    pair.verifier.kill()
    pair.verifier.start()  # returns when it is ready again
    answer = asking.answer()
    assert answer.text == calm.text
    assert answer.statistics.reconnects > 0
