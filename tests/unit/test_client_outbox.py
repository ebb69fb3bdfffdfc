"""What waits to be sent: in order, bounded, and nothing after the end."""

from harness.virtual_time import run_virtually

from paceline.client.outbox import Outbox
from paceline.messages import Close, CloseReason, EdgeMessage, Proposal
from paceline.tokens import Position, TokenId

CLOSE = Close(reason=CloseReason.DONE)


def _nodes(base: int) -> Proposal:
    return Proposal(base_position=Position(base), tokens=(TokenId(1),))


def _ack(base: int) -> Proposal:
    return Proposal(base_position=Position(base))


def _taken(*messages: EdgeMessage) -> list[EdgeMessage]:
    async def main() -> list[EdgeMessage]:
        outbox = Outbox()
        for message in messages:
            outbox.post(message)
        outbox.close()
        taken = []
        while (one := await outbox.take()) is not None:
            taken.append(one)
        return taken

    return run_virtually(main())


def test_in_order() -> None:
    assert _taken(_nodes(1), _nodes(2), CLOSE) == [_nodes(1), _nodes(2), CLOSE]


def test_an_acknowledgement_gives_way_to_what_acknowledges_more() -> None:
    assert _taken(_nodes(1), _ack(2), _ack(3), _nodes(4), _ack(5)) == [
        _nodes(1),
        _nodes(4),
        _ack(5),
    ]


def test_nothing_follows_close() -> None:
    assert _taken(CLOSE, _nodes(1), _ack(2)) == [CLOSE]


def test_what_was_meant_for_a_lost_stream_is_forgotten() -> None:
    async def main() -> None:
        outbox = Outbox()
        outbox.post(CLOSE)
        outbox.clear()
        assert len(outbox) == 0
        outbox.post(_nodes(1))
        assert await outbox.take() == _nodes(1)

    run_virtually(main())
