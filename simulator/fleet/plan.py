"""Which rows go into a step: the rule of `cloud.scheduler`, for sessions that share no prefix, without a value for each.

A test holds it against `cloud.scheduler.plan_step`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.scheduler import SchedulerSettings, share_out


def shares(
    offered: Sequence[int], prompts: Sequence[int], settings: SchedulerSettings
) -> tuple[int, list[int], list[int]]:
    """Return how many of the sessions get a root, their draft rows, and the prefill rows.

    Args:
        offered: draft rows of the sessions that are due, who has waited longest first.
        prompts: rows of prompts to compute, who has waited longest first.
        settings: of the scheduler.
    """
    budget = settings.row_budget
    wanted = sum(prompts)
    reserve = min(wanted, max(1, int(budget * settings.prefill_share))) if wanted else 0
    num_roots = min(len(offered), budget - reserve)
    drafts = list(offered[:num_roots])
    left = budget - reserve - num_roots
    num_drafts = sum(drafts)
    if num_drafts > left:
        drafts = share_out(drafts, left)
        num_drafts = left
    room = reserve + left - num_drafts
    prefill = list(prompts) if wanted <= room else share_out(prompts, room)
    return num_roots, drafts, prefill
