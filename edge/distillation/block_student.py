"""A student with mask slots: one pass guesses the next token and several after it.

Sources: Xia et al., "Speculative Decoding" (SpecDec, arXiv 2203.16487), whose drafter fills a block of mask tokens at once; "DART"
(arXiv 2601.19278), whose slots ride behind the text in a causal model. Here the slots stand behind any token of the text and
see each other in order.

Shape suffixes: T = tokens of a batch; W = output vocabulary of the student.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edge.distillation.block_attention import KEYWORD, Blocks
from edge.distillation.student import LENGTHS, Student

_SPREAD = 0.1
"""Of the first embeddings around the mean of all tokens', in their standard deviations: equal slots would stay equal."""


class BlockStudent(Student):
    """See the module.

    Args:
        student: its model is taken over.
        num_slots: at least 1; a block has one position more, the one after its token.
        seed: of the first embeddings.
    """

    def __init__(self, student: Student, *, num_slots: int, seed: int) -> None:
        trains_head = student.head.requires_grad
        super().__init__(student.model, output_ids=student.output_ids, trains_head=trains_head)
        embeddings = self.model.get_input_embeddings()
        known = embeddings(self.output_ids).detach().float()
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(num_slots, known.shape[1], generator=generator).to(known.device)
        self.slots = nn.Parameter(known.mean(0) + _SPREAD * known.std(0) * noise)
        """[slots, hidden]; as they enter the first layer, behind whatever the model does to embeddings of tokens."""

    @property
    def num_slots(self) -> int:
        """Slots of a block."""
        return len(self.slots)

    def with_blocks(
        self, tokens: Tensor, positions: Tensor, lengths: Sequence[int], *, blocks: Blocks
    ) -> Tensor:
        """Return logits [T + slots, W] of packed texts, and of blocks behind them.

        Args:
            tokens: [T].
            positions: [T]; of each token in its own text.
            lengths: of the texts, one after another; they add up to T.
            blocks: each of `num_slots`; at least one.
        """
        embedded = self.model.get_input_embeddings()(tokens)
        starts = torch.from_numpy(blocks.starts).to(tokens.device)
        ahead = torch.arange(1, blocks.num_slots + 1, device=tokens.device)
        places = (positions[starts][:, None] + ahead).flatten()
        slots = self.slots.to(embedded.dtype).repeat(len(starts), 1)
        inputs = {
            "inputs_embeds": torch.cat((embedded, slots))[None],
            "position_ids": torch.cat((positions, places))[None],
            "use_cache": False,
            LENGTHS: list(lengths),
            KEYWORD: blocks,
        }
        return self.logits_of(self.model.base_model(**inputs).last_hidden_state[0])
