"""Every cell of both tables: allowed and leading where it says, or refused with the right half of the blame."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TypeVar

import pytest

from paceline.errors import LocalProtocolError, RemoteProtocolError
from paceline.session.table import (
    CLOUD_TABLE,
    EDGE_TABLE,
    FROM_THE_PEER,
    CloudKind,
    CloudState,
    EdgeKind,
    EdgeState,
    cloud_leads_to,
    edge_leads_to,
)

S = TypeVar("S")
K = TypeVar("K")
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "protocol.md"


def _edge(state: EdgeState, kind: EdgeKind) -> EdgeState:
    return edge_leads_to(state, kind, can_resume=True)


@pytest.mark.parametrize(("state", "kind"), list(product(EdgeState, EdgeKind)))
def test_every_cell_of_the_edge(state: EdgeState, kind: EdgeKind) -> None:
    if kind in EDGE_TABLE[state]:
        assert _edge(state, kind) is EDGE_TABLE[state][kind]
        return
    blame = RemoteProtocolError if kind in FROM_THE_PEER else LocalProtocolError
    with pytest.raises(blame, match=f"got '{kind.value}' in state '{state.value}'"):
        _edge(state, kind)


@pytest.mark.parametrize(("state", "kind"), list(product(CloudState, CloudKind)))
def test_every_cell_of_the_cloud(state: CloudState, kind: CloudKind) -> None:
    if kind in CLOUD_TABLE[state]:
        assert cloud_leads_to(state, kind) is CLOUD_TABLE[state][kind]
        return
    blame = RemoteProtocolError if kind in FROM_THE_PEER else LocalProtocolError
    with pytest.raises(blame, match=f"got '{kind.value}' in state '{state.value}'"):
        cloud_leads_to(state, kind)


def test_without_a_session_to_resume_a_link_opens() -> None:
    state = edge_leads_to(EdgeState.OFFLINE, EdgeKind.LINK_UP, can_resume=False)
    assert state is EdgeState.OPENING


def test_what_the_peer_says_and_what_we_do_are_told_apart() -> None:
    assert {kind for kind in FROM_THE_PEER if isinstance(kind, EdgeKind)} == {
        EdgeKind.OPENED,
        EdgeKind.COMMIT,
        EdgeKind.FINISH,
        EdgeKind.DRAIN,
        EdgeKind.REFUSED,
        EdgeKind.LOST,
        EdgeKind.BROKEN,
    }


def _reachable(start: S, table: dict[S, dict[K, S]]) -> set[S]:
    found, pending = {start}, [start]
    while pending:
        for following in table[pending.pop()].values():
            if following not in found:
                found.add(following)
                pending.append(following)
    return found


def test_every_state_is_reached_and_can_end() -> None:
    assert _reachable(EdgeState.NEW, EDGE_TABLE) == set(EdgeState)
    assert _reachable(CloudState.LIVE, CLOUD_TABLE) == set(CloudState)
    for edge_state in EdgeState:
        assert _reachable(edge_state, EDGE_TABLE) & {EdgeState.DONE, EdgeState.FAILED}
    for cloud_state in CloudState:
        assert CloudState.CLOSED in _reachable(cloud_state, CLOUD_TABLE)


def test_ends_are_final() -> None:
    for state in (EdgeState.DONE, EdgeState.FAILED):
        assert _reachable(state, EDGE_TABLE) == {state}
    assert _reachable(CloudState.CLOSED, CLOUD_TABLE) == {CloudState.CLOSED}


def diagram(table: dict[S, dict[K, S]], start: S, ends: set[S]) -> str:
    """Return the table as a Mermaid diagram; what changes no state is left out."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    for state, row in table.items():
        kinds: dict[S, list[str]] = {}
        for kind, following in row.items():
            if following is not state:
                kinds.setdefault(following, []).append(str(kind))
        lines += [f"    {state} --> {following}: {' / '.join(k)}" for following, k in kinds.items()]
    if start is EdgeState.NEW:
        without = edge_leads_to(EdgeState.OFFLINE, EdgeKind.LINK_UP, can_resume=False)
        lines.append(f"    {EdgeState.OFFLINE} --> {without}: link up, nothing to resume")
    lines += [f"    {state} --> [*]" for state in table if state in ends]
    return "\n".join([*lines, "```"])


DIAGRAMS: dict[str, Callable[[], str]] = {
    "edge": lambda: diagram(EDGE_TABLE, EdgeState.NEW, {EdgeState.DONE, EdgeState.FAILED}),
    "cloud": lambda: diagram(CLOUD_TABLE, CloudState.LIVE, {CloudState.CLOSED}),
}


@pytest.mark.parametrize("half", list(DIAGRAMS))
def test_the_diagrams_in_the_document_are_the_tables(
    half: str, pytestconfig: pytest.Config
) -> None:
    text = DOCUMENT.read_text(encoding="ascii")
    begin, end = f"<!-- {half} table -->\n", f"\n<!-- end of {half} table -->"
    before, rest = text.split(begin)
    written, after = rest.split(end)
    drawn = DIAGRAMS[half]()
    if pytestconfig.getoption("--rewrite-golden"):
        DOCUMENT.write_text(before + begin + drawn + end + after, encoding="ascii")
    else:
        assert written == drawn, "run: pytest --rewrite-golden"
