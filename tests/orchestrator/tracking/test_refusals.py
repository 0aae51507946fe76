"""Which errors are an answer and which a server that is away."""

import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode

from orchestrator.tracking.refusals import FINAL, TRIES_IN_DOUBT, Refused, is_refusal, one_line


def test_every_final_code_is_one_of_mlflows() -> None:
    assert set(ErrorCode.keys()) >= FINAL


@pytest.mark.parametrize(
    "code", ["INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST", "UNAUTHENTICATED"]
)
def test_what_is_wrong_in_itself_is_refused_at_once(code: str) -> None:
    assert is_refusal(RestException({"error_code": code, "message": "no"}), tries=1)
    assert is_refusal(MlflowException("no", ErrorCode.Value(code)), tries=1)


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("API request failed with timeout exception"),
        RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "database is locked"}),
        RestException({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slowly"}),
        RestException({"error_code": "ENDPOINT_NOT_FOUND", "message": "a proxy without a server"}),
        RestException({"error_code": "503"}),
        ConnectionRefusedError("nobody listens"),
        TimeoutError("too long"),
        OSError(28, "No space left on device"),
        RuntimeError("anything else"),
    ],
)
def test_what_may_pass_is_never_a_refusal(error: Exception) -> None:
    assert not is_refusal(error, tries=1000)


def test_a_bad_request_may_be_a_lost_race_and_is_tried_a_few_times() -> None:
    error = RestException({"error_code": "BAD_REQUEST", "message": "QueuePool limit reached"})
    assert [is_refusal(error, tries) for tries in (1, TRIES_IN_DOUBT - 1, TRIES_IN_DOUBT)] == [False, False, True]


@pytest.mark.parametrize("error", [FileNotFoundError("f"), ImportError("psycopg2"), TypeError(), Refused("no")])
def test_mistakes_on_this_side_are_refusals(error: Exception) -> None:
    assert is_refusal(error, tries=1)


def test_an_error_reads_as_one_line_without_passwords() -> None:
    assert one_line(ValueError("\nhttp://me:secret@host/a failed\nmore")) == "ValueError: http://host/a failed"
    assert one_line(ValueError()) == "ValueError: "
    assert one_line(Refused("OSError: disk")) == "OSError: disk"
