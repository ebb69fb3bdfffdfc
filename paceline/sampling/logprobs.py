"""Log probabilities as they are reported to users: of the model's own distribution, before any filter.

Shape suffixes: V = vocabulary.
"""

import torch
from torch import Tensor

from paceline.messages import TokenLogprobs
from paceline.sampling.filters import best, checked_peak
from paceline.tokens import TokenId


def logprobs(
    logits_V: Tensor, token: TokenId, *, num_top: int, vocabulary_size: int
) -> TokenLogprobs:
    """Return the natural log probability of a token, and the most likely tokens with theirs.

    Args:
        logits_V: the model's own, neither biased nor penalised nor scaled; may be longer than the vocabulary.
        token: the committed token.
        num_top: how many of the most likely tokens; 0 for none.
        vocabulary_size: ids of the tokenizer; logits at and beyond it are ignored.

    Raises:
        ModelError: the largest logit is not finite.
    """
    logits_V = logits_V[:vocabulary_size].float()
    checked_peak(logits_V)
    normaliser = torch.logsumexp(logits_V, 0)
    top = best(logits_V, num_top) if num_top > 0 else logits_V.new_zeros(0, dtype=torch.int64)
    return TokenLogprobs(
        logprob=float(logits_V[token] - normaliser),
        top_tokens=tuple(TokenId(top_token) for top_token in top.tolist()),
        top_logprobs=tuple((logits_V[top] - normaliser).tolist()),
    )
