"""What is kept of a sampled response: one row of a Parquet file, with the log-probs of both engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from actors.messages import FloatArray, IntArray

VERSION_KEY = "evenkeel.rollouts"  # in the metadata of the schema; its value grows when a column changes its meaning
VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """A response with all that is known of it, T tokens long.

    Example:
        RolloutRow(step=40, split="train", problem=812, sample=3, source="arithmetic", prompt="347+285=",
                   response="#632", answer="632", extracted="632", prompt_token_ids=array([5, 14, 7], dtype=int32),
                   response_token_ids=array([11, 9, 2], dtype=int32), tokens=("#", "632", "<end>"),
                   train_logprobs=array([-0.1, -0.2, -0.01], dtype=float32),
                   rollout_logprobs=array([-0.11, -0.2, -0.01], dtype=float32), score=1.0, reward=0.95, advantage=0.7,
                   error=None, finished=True, weight_version=40)
    """

    step: int
    split: str  # "train", or the name of an evaluation set
    problem: int  # its number in the task's stream, or its row in the set
    sample: int  # which of the responses to this problem
    source: str  # of the problem
    prompt: str
    response: str
    answer: str  # that was expected
    extracted: str | None  # the answer found in the response
    prompt_token_ids: IntArray  # [P]
    response_token_ids: IntArray  # [T]
    tokens: tuple[str, ...]  # [T] each decoded on its own: shown without a tokenizer
    train_logprobs: FloatArray | None  # [T] natural logarithms under the learner; evaluations have none
    rollout_logprobs: FloatArray  # [T] the same as the sampler reported them
    score: float  # of the response itself
    reward: float  # the score with all shaping
    advantage: float | None  # None where nothing is trained on it
    error: str | None  # what kept the reward from being computed
    finished: bool  # False when cut at the length limit
    weight_version: int  # of the weights that sampled it


INTS, FLOATS = pa.list_(pa.int32()), pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("problem", pa.int64(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("extracted", pa.string()),
        pa.field("prompt_token_ids", INTS, nullable=False),
        pa.field("response_token_ids", INTS, nullable=False),
        pa.field("tokens", pa.list_(pa.string()), nullable=False),
        pa.field("train_logprobs", FLOATS),
        pa.field("rollout_logprobs", FLOATS, nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("advantage", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("finished", pa.bool_(), nullable=False),
        pa.field("weight_version", pa.int64(), nullable=False),
    ],
    metadata={VERSION_KEY: VERSION},
)
PER_TOKEN = ("tokens", "train_logprobs", "rollout_logprobs")


def table_of(rows: Sequence[RolloutRow]) -> pa.Table:
    """The rows as an Arrow table of `SCHEMA`; no row gives an empty one.

    Raises:
        ValueError: a row has not one token text or log-prob for each token of its response.
    """
    for number, row in enumerate(rows):
        _check_lengths(number, row)
    columns = [_column([getattr(row, field.name) for row in rows], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _check_lengths(number: int, row: RolloutRow) -> None:
    length = len(row.response_token_ids)
    for name in PER_TOKEN:
        values = getattr(row, name)
        if values is not None and len(values) != length:
            expected = f"as many as response_token_ids has ({length})"
            raise ValueError(f"row {number}: {name}: got {len(values)} values, expected {expected}")


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        return _lists(values, kind)
    return _texts(values) if pa.types.is_string(kind) else pa.array(values, kind)


def _lists(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A list column, its elements joined before they go to Arrow: a hundred times faster than array by array."""
    present = [value for value in values if value is not None]
    if pa.types.is_string(kind.value_type):
        flat = _texts(list(chain.from_iterable(present)))
    else:
        empty = np.empty(0, kind.value_type.to_pandas_dtype())
        flat = pa.array(np.concatenate([empty, *present]), kind.value_type)
    lengths = [0 if value is None else len(value) for value in values]
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    absent = pa.array([value is None for value in values], pa.bool_())
    return pa.ListArray.from_arrays(offsets, flat, type=kind, mask=absent)


def _texts(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # half a surrogate pair, which some data sets hold; Parquet cannot
        whole = [value and value.encode("utf-8", "replace").decode() for value in values]
        return pa.array(whole, pa.string())
