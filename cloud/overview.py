"""Puts together what a verifier has done and holds now."""

from cloud.account import VerifierStatistics
from cloud.sessions import Registry
from cloud.stepper import StepModel


def overview(registry: Registry, worker: StepModel, *, now_s: float) -> VerifierStatistics:
    """Return it as one value; costs a look at every session."""
    account, entries = registry.account, registry.entries
    drafts = account.drafts
    for entry in entries:
        drafts = drafts.plus(entry.session.counts)
    return VerifierStatistics(
        num_sessions=len(entries),
        num_streams=registry.num_streams,
        num_running=sum(entry.is_running for entry in entries),
        num_waiting=sum(entry.is_waiting for entry in entries),
        max_sessions=registry.max_sessions,
        is_draining=registry.is_draining,
        num_opened=account.num_opened,
        num_resumed=account.num_resumed,
        refused=dict(account.refused),
        ended=dict(account.ended),
        prompt_tokens=account.prompt_tokens,
        committed=account.committed + sum(entry.num_committed for entry in entries),
        drafts=drafts,
        num_drafts=account.num_drafts,
        accepted_per_position=tuple(account.accepted_per_position),
        payload_bytes_up=account.payload_bytes_up,
        payload_bytes_down=account.payload_bytes_down,
        num_served=account.num_served,
        queue_ns=account.queue_ns,
        first_token=account.first_token.spread,
        token_gap=account.token_gap.spread,
        duration=account.duration.spread,
        queue=account.queue.spread,
        steps=worker.times,
        engine=worker.engine_split,
        prefix=worker.prefix,
        memory=worker.memory,
        load=account.load.load(now_s=now_s),
        drafts_chosen=account.drafts_chosen,
        drafts_left_out=account.drafts_left_out,
        drafts_expected=account.drafts_expected,
        costs=account.cost_fit.costs,
        race_drafted=account.race_drafted,
        race_accepted=account.race_accepted,
    )
