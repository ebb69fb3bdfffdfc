"""Which guesses of a tree are computed, and in which sequences: against a memory that marks cells as llama.cpp does."""

import random
from collections.abc import Sequence

import pytest

from edge.drafters.llama.branches import Branches, NoRoomError, Share, Wave
from edge.drafters.llama.cells import Row
from paceline.tokens import TokenId


class Memory:
    """Cells with a token, a position and the sequences they belong to."""

    def __init__(self, text: Sequence[int]) -> None:
        self.cells = [(token, position, {0}) for position, token in enumerate(text)]

    def share(self, share: Share) -> None:
        for _, position, sequences in self.cells:
            if share.source in sequences and share.first <= position < share.end:
                sequences.add(share.target)

    def compute(self, rows: Sequence[Row]) -> None:
        for row in rows:
            assert row.position == len(self.text(row.sequence)), "positions go on without a gap"
            self.cells.append((row.token, row.position, {row.sequence}))

    def remove(self, sequence: int) -> None:
        for _, _, sequences in self.cells:
            sequences.discard(sequence)
        self.cells = [cell for cell in self.cells if cell[2]]

    def text(self, sequence: int) -> list[int]:
        """What a row at the end of a sequence sees."""
        own = sorted((cell for cell in self.cells if sequence in cell[2]), key=lambda cell: cell[1])
        assert [position for _, position, _ in own] == list(range(len(own)))
        return [token for token, _, _ in own]


class World:
    """Branches as their caller uses them, below a text whose last token at least is not computed as its own."""

    def __init__(self, text: list[int], *, num_sequences: int, most_rows: int) -> None:
        self.text = text
        self.held = text[:-1]
        self.memory = Memory(self.held)
        self.num_sequences, self.most_rows = num_sequences, most_rows
        self.num_rows = self.num_drops = 0
        self.begin()

    def begin(self) -> None:
        self.branches = Branches(
            len(self.held), num_sequences=self.num_sequences, most_rows=self.most_rows
        )

    def ask(self, paths: Sequence[tuple[int, ...]]) -> None:
        tail = self.text[len(self.held) :]
        waiting = [tuple(TokenId(token) for token in (*tail, *path)) for path in paths]
        while waiting:
            try:
                wave = self.branches.plan(waiting[: self.num_sequences // 2], most_rows=40)
            except NoRoomError:
                assert not self.branches.is_empty, "what is new has room for each path"
                self.num_drops += 1
                for sequence in self.branches.drop():
                    self.memory.remove(sequence)
                self.begin()
                continue
            self.run(wave)
            assert wave.leaves
            waiting = [path for path in waiting if path not in wave.leaves]

    def run(self, wave: Wave) -> None:
        for share in wave.shares:
            self.memory.share(share)
        self.memory.compute(wave.rows)
        self.num_rows += len(wave.rows)
        for path, index in wave.leaves.items():
            row = wave.rows[index]
            assert row.wants_logits
            assert self.memory.text(row.sequence)[: row.position + 1] == [*self.held, *path]
        for sequence in wave.passing:
            self.memory.remove(sequence)
        self.branches.end(wave)

    def commit(self, tokens: Sequence[int]) -> None:
        self.text = [*self.text, *tokens]
        tail = self.text[len(self.held) :]
        settled = self.branches.commit([TokenId(token) for token in tail])
        if settled.share is not None:
            self.memory.share(settled.share)
        for sequence in settled.removed:
            self.memory.remove(sequence)
        self.held += tail[: settled.num_tokens]
        assert self.memory.text(0) == self.held


@pytest.mark.parametrize("seed", range(6))
def test_every_row_sees_what_is_above_it_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    world = World([1, 2, 9], num_sequences=rng.choice((8, 20)), most_rows=rng.choice((30, 200)))
    leaves: list[tuple[int, ...]] = [()]
    num_kept = 0
    for _ in range(60):
        paths = rng.sample(leaves, min(len(leaves), 4))
        world.ask(paths)
        grown = [(*path, rng.randrange(3)) for path in paths if len(path) < 6]
        leaves = [*dict.fromkeys((*leaves, *grown))]
        if rng.random() < 0.3:
            gone = (*rng.choice(leaves), rng.randrange(4))[: rng.randrange(1, 6)]
            world.commit(gone)
            num_kept += not world.branches.is_empty
            below = [path[len(gone) :] for path in leaves if path[: len(gone)] == gone]
            leaves = [*dict.fromkeys(((), *below))]
    assert world.num_rows > 60
    assert num_kept > 0


def test_a_branch_goes_on_in_its_own_sequence_and_the_second_one_begins_another() -> None:
    branches = Branches(5, num_sequences=4, most_rows=10)
    first = branches.plan([(TokenId(7),)], most_rows=10)
    assert [(row.sequence, row.position) for row in first.rows] == [(1, 5)]
    assert first.shares == [Share(source=0, target=1, end=5)]
    second = branches.plan([(TokenId(7), TokenId(8)), (TokenId(7), TokenId(9))], most_rows=10)
    assert [(row.sequence, row.position) for row in second.rows] == [(1, 6), (2, 6)]
    assert second.shares == [Share(source=1, target=2, end=6)]
    settled = branches.commit([TokenId(7), TokenId(9), TokenId(3)])
    assert settled.num_tokens == 2
    assert settled.share == Share(source=2, target=0, first=5, end=7)
    assert sorted(settled.removed) == [1, 2]
    assert branches.is_empty


def test_a_path_waits_for_what_the_same_call_computes() -> None:
    branches = Branches(5, num_sequences=8, most_rows=10)
    paths = [(TokenId(7), TokenId(8)), (TokenId(7), TokenId(9))]
    wave = branches.plan(paths, most_rows=10)
    assert list(wave.leaves) == paths[:1]
    assert list(branches.plan(paths[1:], most_rows=10).leaves) == paths[1:]


def test_what_is_computed_already_is_computed_again_beside_itself() -> None:
    branches = Branches(5, num_sequences=8, most_rows=10)
    path = (TokenId(7),)
    assert branches.plan([path], most_rows=10).passing == []
    again = branches.plan([path], most_rows=10)
    assert again.passing == [again.rows[0].sequence] == [2]
    branches.end(again)
    assert branches.drop() == (1,)


def test_too_many_branches_are_told() -> None:
    branches = Branches(5, num_sequences=3, most_rows=10)
    paths = [(TokenId(7),), (TokenId(8),), (TokenId(9),)]
    wave = branches.plan(paths, most_rows=10)
    assert list(wave.leaves) == paths[:2]
    with pytest.raises(NoRoomError):
        branches.plan(paths[2:], most_rows=10)
    assert sorted(branches.drop()) == [1, 2]
    assert list(branches.plan(paths[2:], most_rows=10).leaves) == paths[2:]
