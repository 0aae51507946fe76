"""Messages as bytes: what comes out is what went in, and a method is called by a message."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Response, SampleRequest
from cluster.packing import TakesPacked, packed, unpacked


class Adder(TakesPacked):
    def add(self, numbers: list[int]) -> int:
        return sum(numbers)

    def refuse(self, item: None) -> None:
        raise ValueError("not today")


@given(st.recursive(st.none() | st.integers() | st.text(), lambda below: st.lists(below) | st.tuples(below, below)))
def test_a_value_comes_out_as_it_went_in(value: object) -> None:
    assert unpacked(packed(value)) == value


def test_arrays_of_a_message_keep_type_and_values() -> None:
    sent = SampleRequest(prompt_ids=np.array([5, 14, 7], np.int32), seeds=(2**62, 3))
    got = unpacked(packed([sent]))[0]
    assert got.prompt_ids.dtype == np.int32
    assert got.prompt_ids.tolist() == [5, 14, 7]
    assert (got.seeds, got.temperature) == (sent.seeds, None)


def test_a_message_of_many_small_arrays_is_little_more_than_their_bytes() -> None:
    tokens = np.arange(30, dtype=np.int32)
    logprobs = np.zeros(30, np.float32)
    one = Response(token_ids=tokens, logprobs=logprobs, finished=True, weight_version=1)
    assert len(packed([one])) < 2 * 240 + 500
    assert len(packed([one] * 2)) < len(packed([one])) + 50  # the same object once only


def test_what_the_standard_pickler_cannot_name_is_packed_all_the_same() -> None:
    assert unpacked(packed(lambda: 7))() == 7


def test_a_method_is_called_with_the_argument_of_a_message() -> None:
    assert unpacked(Adder().call_packed(packed(("add", [1, 2, 3])))) == 6
    with pytest.raises(ValueError, match="not today"):
        Adder().call_packed(packed(("refuse", None)))
