"""What findings mean: each verdict as a table."""

from datetime import UTC, datetime, timedelta

import pytest

from simulator.doctor.verdicts import (
    broker,
    certificates,
    machine,
    models,
    network,
    software,
    verifier,
)
from simulator.doctor.verdicts.certificates import Certificate, CertificateFinding
from simulator.doctor.verdicts.check import Status

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
OK, WARN, FAIL, SKIPPED = Status.OK, Status.WARN, Status.FAIL, Status.SKIPPED
GIB = machine.GIB


@pytest.mark.parametrize(
    ("version", "status"), [("3.10.14", FAIL), ("3.11.0", OK), ("3.14.0rc1", OK), ("2.7.18", FAIL)]
)
def test_python(version: str, status: Status) -> None:
    assert software.judge_python(version, specifier=">=3.11").status is status


@pytest.mark.parametrize(
    ("specifier", "installed", "status"),
    [
        (">=2.9", "2.13.0+cpu", OK),
        (">=2.9", "2.8.1", FAIL),
        (">=7.35.1,<8", "8.0.0", FAIL),
        (">=7.35.1,<8", "7.36.2", OK),
        (">=1.0", None, FAIL),
        ("", "0.0.1", OK),
        (">=2.9", "2.14.0.dev20260501", OK),
    ],
)
def test_packages(specifier: str, installed: str | None, status: Status) -> None:
    fine = software.Package(name="click", specifier=">=8", installed="8.3")
    package = software.Package(name="torch", specifier=specifier, installed=installed)
    check = software.judge_packages((fine, package))
    assert check.status is status
    if status is FAIL:
        assert f"pip install 'torch{specifier}'" in check.advice
        assert "click" not in check.found
    else:
        assert check.found == f"torch {installed} and 1 more, as needed"


def _machine(**changes: object) -> machine.Machine:
    fields: dict[str, object] = {
        "architecture": "aarch64",
        "num_cores": 4,
        "num_threads": 4,
        "available_bytes": 8 * GIB,
    }
    return machine.Machine(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "processor", "memory"),
    [
        ({}, OK, OK),
        ({"num_threads": 5}, WARN, OK),
        ({"num_threads": 1}, OK, OK),
        ({"available_bytes": 500 * 2**20}, OK, WARN),
        ({"available_bytes": None}, OK, WARN),
    ],
)
def test_machine(changes: dict[str, object], processor: Status, memory: Status) -> None:
    found = _machine(**changes)
    assert machine.judge_processor(found).status is processor
    assert machine.judge_memory(found).status is memory
    assert machine.judge_gpu(found).status is OK


def test_clock() -> None:
    assert machine.judge_clock(NOW, installed=NOW - timedelta(days=1)).status is OK
    wrong = machine.judge_clock(datetime(1970, 1, 1, tzinfo=UTC), installed=NOW)
    assert wrong.status is FAIL
    assert "1970-01-01" in wrong.found


def _model(role: str = "target", **changes: object) -> models.ModelFinding:
    fields: dict[str, object] = {
        "role": role,
        "name": f"a-{role}",
        "tokenizer_fingerprint": bytes(32),
        "vocabulary_size": 260,
    }
    return models.ModelFinding(**(fields | changes))  # type: ignore[arg-type]


def test_models() -> None:
    assert models.judge_model(_model()).status is OK
    broken = models.judge_model(_model("draft", error="there is no file x.gguf"))
    assert (broken.status, broken.found) == (FAIL, "there is no file x.gguf")
    assert "--draft" in broken.advice
    loaded = models.judge_model(_model(weight_bytes=GIB, loaded_s=2.5))
    assert loaded.found.endswith("weights 1.0 GiB, loaded in 2.5 s")


@pytest.mark.parametrize(
    ("draft", "status"),
    [
        (None, SKIPPED),
        (_model("draft"), OK),
        (_model("draft", tokenizer_fingerprint=b"x" * 32), FAIL),
        (_model("draft", error="gone"), SKIPPED),
    ],
)
def test_same_tokenizer(draft: models.ModelFinding | None, status: Status) -> None:
    assert models.judge_pair(_model(), draft).status is status


@pytest.mark.parametrize(
    ("weight_gib", "available_gib", "status"),
    [(0, 1, SKIPPED), (1, None, SKIPPED), (1, 8, OK), (1, 3, WARN), (1, 1, FAIL), (8, 8, FAIL)],
)
def test_fit(weight_gib: int, available_gib: int | None, status: Status) -> None:
    available = None if available_gib is None else available_gib * GIB
    half = (
        _model(weight_bytes=weight_gib * GIB // 2),
        _model("draft", weight_bytes=weight_gib * GIB // 2),
    )
    assert models.judge_fit(half, available_bytes=available).status is status
    assert models.judge_fit((_model(error="x"),), available_bytes=available).status is SKIPPED


@pytest.mark.parametrize(
    ("left", "status"),
    [
        (timedelta(days=89), OK),
        (timedelta(days=30), OK),
        (timedelta(days=29), WARN),
        (timedelta(seconds=1), WARN),
        (timedelta(0), FAIL),
        (timedelta(days=-3), FAIL),
    ],
)
def test_how_long_a_certificate_is_good(left: timedelta, status: Status) -> None:
    finding = CertificateFinding(
        certificate=Certificate(subject="cloud", expires=NOW + left, names=("gpu-box", "::1")),
        purposes=("server", "client"),
    )
    check = certificates.judge_certificate("--tls-cert", finding, now=NOW)
    assert check.status is status
    assert check.found.startswith("cloud (server and client) for gpu-box, ::1, expires 20")
    assert bool(check.advice) == (status is not OK)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (certificates.EXPIRED, "Make a new certificate"),
        (certificates.NOT_YET_VALID, "Check the clock"),
        (certificates.WRONG_HOST, "Use a name that stands in"),
        (certificates.WRONG_ADDRESS, "Use a name that stands in"),
        (certificates.NO_ISSUER, "--tls-ca"),
        (certificates.NO_ISSUER_LEAF, "--tls-ca"),
        (certificates.SELF_SIGNED_IN_CHAIN, "--tls-ca"),
        (certificates.WRONG_PURPOSE, "made for the other role"),
        (certificates.NO_TLS, "--insecure"),
        (0, "PEM"),
        (7, "PEM"),
    ],
)
def test_why_a_certificate_does_not_verify(code: int, said: str) -> None:
    finding = CertificateFinding(error="no good", code=code)
    check = certificates.judge_certificate("x", finding, now=NOW)
    assert (check.status, check.found) == (FAIL, "no good")
    assert said in check.advice


def test_ports() -> None:
    port = network.PortFinding
    assert network.judge_port(port(address="127.0.0.1:1883")).status is OK
    usual = network.judge_port(port(address="127.0.0.1:1883", error="address already in use"))
    asked = network.judge_port(
        port(address="0.0.0.0:80", error="permission denied", was_asked_for=True)
    )
    assert (usual.status, asked.status) == (WARN, FAIL)
    assert asked.found == "permission denied"


def test_the_way_to_a_server() -> None:
    nowhere = network.Reached(address="gpu-bxo:50051", error="gpu-bxo: name or service not known")
    closed = network.Reached(address="a:1", hosts=("192.0.2.1",), error="connection refused")
    there = network.Reached(address="a:1", hosts=("192.0.2.1",), connect_s=0.0213)
    assert network.judge_name("n", nowhere).status is FAIL
    assert network.judge_name("n", closed).found == "192.0.2.1"
    refused = network.judge_connection("c", closed, program="`paceline cloud`")
    assert (refused.status, refused.found) == (FAIL, "connection refused")
    assert "`paceline cloud`" in refused.advice
    assert network.judge_connection("c", there, program="x").found == "connected in 21.3 ms"


@pytest.mark.parametrize(
    ("samples_ms", "status", "said"),
    [
        ([0.8, 0.9, 1.0], OK, "so near"),
        ([60, 61, 70], OK, "good"),
        ([20, 21, 69], OK, "good"),
        ([20, 21, 75], WARN, "bursts"),
        ([200, 201, 320], OK, "good"),
        ([200, 201, 500], WARN, "bursts"),
        ([251, 252, 253], WARN, "waits that long"),
    ],
)
def test_what_a_link_is_good_for(samples_ms: list[float], status: Status, said: str) -> None:
    check = network.judge_link("link", tuple(sample * 1e-3 for sample in samples_ms))
    assert check.status is status
    assert said in check.found
    assert f"slowest of 3 {max(samples_ms):.1f} ms" in check.found


def _described(**changes: object) -> verifier.Described:
    fields: dict[str, object] = {
        "target": "smollm2-135m",
        "dtype": "float32",
        "tokenizer_fingerprint": bytes(32),
        "weights_fingerprint": b"w" * 32,
        "samples_s": (0.02,),
    }
    return verifier.Described(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "UNAUTHENTICATED"}, "--token-file"),
        ({"reason": "INCOMPATIBLE"}, "another version"),
        ({"reason": "OVERLOADED"}, "another --cloud"),
        ({"reason": "TRANSPORT", "is_transport": True}, "does not answer"),
        ({"reason": "TRANSPORT", "is_transport": True, "shows_tls": True}, "--tls-ca"),
        ({"reason": "INTERNAL"}, "the verifier's log"),
    ],
)
def test_a_verifier_that_lets_nobody_in(changes: dict[str, object], said: str) -> None:
    check = verifier.judge_access("access", _described(error="it said so", **changes))
    assert (check.status, check.found) == (FAIL, "it said so")
    assert said in check.advice


def test_the_model_of_a_verifier() -> None:
    assert verifier.judge_access("access", _described()).status is OK
    assert verifier.judge_target("model", _described(), _model()).status is OK
    other = _model(tokenizer_fingerprint=b"x" * 32)
    wrong = verifier.judge_target("model", _described(), other)
    assert wrong.status is FAIL
    assert wrong.advice == "Give the verifier's model as --target: smollm2-135m"
    unknown = verifier.judge_target("model", _described(), _model(error="gone"))
    assert unknown.status is WARN


def test_verifiers_go_together() -> None:
    assert verifier.judge_same_text({"a:1": _described()}) is None
    same = verifier.judge_same_text({"a:1": _described(), "b:1": _described()})
    assert same is not None
    assert same.status is OK
    for change in ({"dtype": "bfloat16"}, {"weights_fingerprint": b"v" * 32}):
        apart = verifier.judge_same_text({"a:1": _described(), "b:1": _described(**change)})
        assert apart is not None
        assert apart.status is FAIL
        assert "a:1 has smollm2-135m" in apart.found


@pytest.mark.parametrize(
    ("changes", "login", "rights", "orchestrator"),
    [
        ({"reason": "UNAUTHENTICATED", "error": "no"}, FAIL, SKIPPED, SKIPPED),
        ({"reason": "TRANSPORT", "error": "no"}, FAIL, SKIPPED, SKIPPED),
        ({}, OK, FAIL, WARN),
        ({"echo_s": 0.01}, OK, OK, WARN),
        ({"echo_s": 0.01, "orchestrator": "offline"}, OK, OK, WARN),
        ({"echo_s": 0.01, "orchestrator": "online"}, OK, OK, OK),
        ({"was_replaced": True}, OK, SKIPPED, SKIPPED),
        ({"was_replaced": True, "orchestrator": "online"}, OK, SKIPPED, OK),
    ],
)
def test_broker(
    changes: dict[str, object], login: Status, rights: Status, orchestrator: Status
) -> None:
    finding = broker.BrokerFinding(**changes)  # type: ignore[arg-type]
    assert broker.judge_login("login", finding).status is login
    assert broker.judge_rights("rights", finding, topic="a/b").status is rights
    assert broker.judge_orchestrator(finding).status is orchestrator
