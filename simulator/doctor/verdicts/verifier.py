"""Does the verifier let us in, and is it the one we mean?"""

from dataclasses import dataclass

from simulator.doctor.verdicts.check import Check, failed, passed, warned
from simulator.doctor.verdicts.models import ModelFinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a verifier said of itself."""

    reason: str = ""
    """Wire reason of the refusal or failure; empty: it answered."""
    error: str = ""
    is_transport: bool = False
    """It is the link that failed: nothing came back."""
    shows_tls: bool = False
    """Somebody answers TLS there, though we were to speak without."""
    target: str = ""
    dtype: str = ""
    tokenizer_fingerprint: bytes = b""
    weights_fingerprint: bytes = b""
    context_length: int = 0
    samples_s: tuple[float, ...] = ()
    """Round trips of asking again and again."""


_ADVICE = {
    "UNAUTHENTICATED": "Get a token from the verifier's operator and give it as --token-file, or a client certificate "
    "as --tls-cert and --tls-key.",
    "INCOMPATIBLE": "Something else listens there, or another version of Paceline: compare `paceline --version`.",
    "OVERLOADED": "It is full: try again later, or give another --cloud as well.",
}


def judge_access(name: str, described: Described) -> Check:
    """Judge whether it answers us at all."""
    if not described.reason:
        return passed(name, "accepted")
    advice = _ADVICE.get(described.reason, "See the verifier's log.")
    if described.shows_tls:
        advice = "It speaks TLS, and we do not: give its authority's certificate as --tls-ca, and no --insecure."
    elif described.is_transport:
        advice = (
            "It takes connections and does not answer: is it a verifier? One that asks for client certificates needs "
            "--tls-cert and --tls-key here."
        )
    return failed(name, described.error, advice)


def judge_target(name: str, described: Described, target: ModelFinding) -> Check:
    """Judge whether it runs the model that --target names."""
    found = (
        f"{described.target} in {described.dtype}, context {described.context_length}, weights "
        f"{described.weights_fingerprint.hex()[:12]}, tokenizer {described.tokenizer_fingerprint.hex()[:12]}"
    )
    if target.error:
        return warned(name, found, "It cannot be compared with --target, which failed above.")
    if described.tokenizer_fingerprint != target.tokenizer_fingerprint:
        return failed(
            name,
            f"{found}, but {target.name} has tokenizer {target.tokenizer_fingerprint.hex()[:12]}",
            f"Give the verifier's model as --target: {described.target}",
        )
    return passed(name, f"{found}: same tokenizer as {target.name}")


def judge_same_text(models: dict[str, Described]) -> Check | None:
    """Judge whether several verifiers would give the same text; none if there are not several.

    Args:
        models: what each verifier that answered said, by address.
    """
    if len(models) < 2:
        return None
    kinds = {(each.weights_fingerprint, each.dtype) for each in models.values()}
    if len(kinds) == 1:
        return passed("same model everywhere", f"{len(models)} verifiers")
    found = ", ".join(
        f"{address} has {each.target} {each.weights_fingerprint.hex()[:12]} in {each.dtype}"
        for address, each in models.items()
    )
    return failed(
        "same model everywhere",
        found,
        "A text only moves to a verifier with the same weights: run the same --target and --dtype on all of them.",
    )
