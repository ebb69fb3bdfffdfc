"""Every status gRPC knows has a meaning for us."""

import grpc
import pytest

from paceline.client.status import ERRORS, error_of_status
from paceline.errors import LinkClosed, PacelineError, UnauthenticatedError


def test_the_table_is_complete() -> None:
    assert set(ERRORS) == set(grpc.StatusCode)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_the_message_is_kept(code: grpc.StatusCode) -> None:
    error = error_of_status(code, "127.0.0.1:1: why")
    assert isinstance(error, PacelineError)
    assert str(error) == "127.0.0.1:1: why"


def test_a_broken_connection_may_be_tried_again_and_wrong_credentials_not() -> None:
    assert issubclass(ERRORS[grpc.StatusCode.UNAVAILABLE], LinkClosed)
    assert ERRORS[grpc.StatusCode.UNAVAILABLE].retryable
    assert ERRORS[grpc.StatusCode.UNAUTHENTICATED] is UnauthenticatedError
    assert not UnauthenticatedError.retryable
