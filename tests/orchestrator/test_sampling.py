"""Batches drawn from a fake engine: rounds, order, cursor, seeds, and the metrics by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.config import RolloutConfig
from actors.messages import Response, SampleRequest
from orchestrator.clock import PhaseClock
from orchestrator.grading import Grade
from orchestrator.problem_set import ProblemSet, Prompt
from orchestrator.sampling import Group, SampledBatch, Sampler, response_seed, seed_of


def response(length: int, finished: bool = True) -> Response:
    return Response(
        token_ids=np.arange(length, dtype=np.int32),
        logprobs=np.full(length, -0.5, np.float32),
        finished=finished,
        weight_version=0,
    )


def group(rewards: Sequence[float], lengths: Sequence[int], prompt: int = 0, finished: bool = True) -> Group:
    return Group(
        prompt=prompt,
        prompt_ids=np.array([prompt], np.int32),
        responses=tuple(response(length, finished) for length in lengths),
        grades=tuple(Grade(score=reward, reward=reward) for reward in rewards),
    )


class FakeEngine:
    """Answers every request with responses as long as the prompt's number plus one; remembers what it was asked."""

    def __init__(self) -> None:
        self.rounds: list[list[SampleRequest]] = []

    def __call__(self, requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
        self.rounds.append(list(requests))
        return [tuple(response(int(request.prompt_ids[0]) + 1) for _ in request.seeds) for request in requests]

    def asked(self) -> list[list[int]]:
        """The prompts of each round."""
        return [[int(request.prompt_ids[0]) for request in requests] for requests in self.rounds]


class FakeProblems:
    """Prompts that are their own numbers, but for those too long; responses to a flat one earn the same."""

    def __init__(self, is_flat: Callable[[int], bool], too_long: Sequence[int] = ()) -> None:
        self.is_flat = is_flat
        self.too_long = too_long

    def draw(self, cursor: int) -> Prompt:
        while cursor in self.too_long:
            cursor += 1
        return Prompt(number=cursor, token_ids=np.array([cursor], np.int32))

    def grade(self, numbers: Sequence[int], responses: Sequence[Sequence[Response]]) -> list[tuple[Grade, ...]]:
        return [
            tuple(grade(0.0 if self.is_flat(number) else float(i)) for i in range(len(some)))
            for number, some in zip(numbers, responses, strict=True)
        ]


def grade(score: float, reward: float | None = None, error: str | None = None) -> Grade:
    return Grade(score=score, reward=score if reward is None else reward, error=error)


def sampler_with(
    engine: FakeEngine, is_flat: Callable[[int], bool], seed: int = 0, too_long: Sequence[int] = (), **rollout: Any
) -> Sampler:
    """Two responses a prompt; those to a flat prompt get equal scores."""
    options = {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": 8, "filter_flat_groups": True}
    problems = cast(ProblemSet, FakeProblems(is_flat, too_long))
    return Sampler(RolloutConfig(**{**options, **rollout}), seed, problems, engine)


def test_one_round_is_enough_when_every_group_can_be_trained_on() -> None:
    engine = FakeEngine()
    sampler = sampler_with(engine, is_flat=lambda _: False)
    first, second = sampler.next_batch(0, PhaseClock()), sampler.next_batch(1, PhaseClock())
    assert engine.asked() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [one.prompt for one in first.kept] == [0, 1, 2, 3]
    assert (first.rounds, second.rounds, sampler.cursor) == (1, 1, 8)
    assert first.generated == first.kept


def test_flat_groups_are_made_up_for_by_as_many_prompts_as_should_fill_the_batch() -> None:
    engine = FakeEngine()
    sampler = sampler_with(engine, is_flat=lambda prompt: prompt in (1, 2, 4))
    batch = sampler.next_batch(0, PhaseClock())
    # 2 of 4 kept: 2 more needed at that share are 4 more prompts; then 5, 6 and 7 are one too many.
    assert engine.asked() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [one.prompt for one in batch.kept] == [0, 3, 5, 6]
    assert len(batch.generated) == sampler.cursor == 8
    assert batch.rounds == 2


def test_a_round_is_never_larger_than_a_batch() -> None:
    engine = FakeEngine()
    sampler = sampler_with(engine, is_flat=lambda prompt: prompt != 3, max_rounds=3)
    batch = sampler.next_batch(0, PhaseClock())
    assert [len(requests) for requests in engine.asked()] == [4, 4, 4]
    assert [one.prompt for one in batch.kept] == [3]


def test_sampling_ends_after_the_last_round_even_with_nothing_kept() -> None:
    engine = FakeEngine()
    batch = sampler_with(engine, is_flat=lambda _: True, max_rounds=2).next_batch(0, PhaseClock())
    assert (batch.kept, batch.rounds, len(batch.generated)) == ((), 2, 8)


def test_without_the_filter_flat_groups_are_kept() -> None:
    engine = FakeEngine()
    batch = sampler_with(engine, is_flat=lambda _: True, filter_flat_groups=False).next_batch(0, PhaseClock())
    assert [one.prompt for one in batch.kept] == [0, 1, 2, 3]
    assert batch.rounds == 1


@given(flat=st.sets(st.integers(0, 60)), max_rounds=st.integers(1, 5))
def test_kept_groups_are_the_first_in_prompt_order_that_are_not_flat(flat: set[int], max_rounds: int) -> None:
    engine = FakeEngine()
    sampler = sampler_with(engine, is_flat=lambda prompt: prompt in flat, max_rounds=max_rounds)
    batch = sampler.next_batch(0, PhaseClock())
    asked = [prompt for prompts in engine.asked() for prompt in prompts]
    assert asked == list(range(sampler.cursor)) == [one.prompt for one in batch.generated]
    assert [one.prompt for one in batch.kept] == [prompt for prompt in asked if prompt not in flat][:4]
    assert len(batch.kept) == 4 or batch.rounds == max_rounds


def test_a_sampler_set_to_a_cursor_goes_on_as_if_it_had_never_stopped() -> None:
    whole, resumed = FakeEngine(), FakeEngine()
    through = sampler_with(whole, is_flat=lambda prompt: prompt % 3 == 0)
    for step in range(3):
        through.next_batch(step, PhaseClock())
        cursor = through.cursor
        if step == 1:
            later = sampler_with(resumed, is_flat=lambda prompt: prompt % 3 == 0)
            later.cursor = cursor
            later.next_batch(2, PhaseClock())
    asked = [[request.seeds for request in requests] for requests in resumed.rounds]
    assert asked == [[request.seeds for request in requests] for requests in whole.rounds[-len(asked) :]]
    assert resumed.asked() == whole.asked()[-len(asked) :]


def test_every_response_of_a_run_has_a_seed_of_its_own_that_depends_on_nothing_else() -> None:
    def seeds(run_seed: int) -> list[int]:
        engine = FakeEngine()
        sampler = sampler_with(engine, is_flat=lambda prompt: prompt % 2 == 0, seed=run_seed)
        for step in range(5):
            sampler.next_batch(step, PhaseClock())
        return [seed for requests in engine.rounds for request in requests for seed in request.seeds]

    one, again, other = seeds(1), seeds(1), seeds(2)
    assert one == again
    assert len({*one, *other}) == len(one) + len(other)


def test_the_seed_of_a_response_never_changes_between_versions_and_machines() -> None:
    assert response_seed(0, 3, 17, 0) == 2229792862517992910


@given(st.text(), st.text())
def test_names_that_differ_have_seeds_that_differ(one: str, other: str) -> None:
    assert (seed_of(one) == seed_of(other)) == (one == other)
    assert 0 <= seed_of(one) < 2**63


@given(st.lists(st.integers(0, 2**40), min_size=4, max_size=4))
def test_a_seed_is_a_63_bit_number(place: list[int]) -> None:
    assert 0 <= response_seed(*place) < 2**63


def test_time_is_counted_towards_rollout_and_score() -> None:
    clock = PhaseClock()
    sampler_with(FakeEngine(), is_flat=lambda _: False).next_batch(0, clock)
    assert {"time/rollout", "time/score"} <= clock.metrics().keys()


def test_a_group_is_flat_when_all_scores_are_equal_whatever_shaping_adds() -> None:
    assert group([0.5, 0.5], [1, 1]).flat
    assert not group([0.5, 0.25], [1, 1]).flat
    shaped = replace(group([0.0, 0.0], [1, 1]), grades=(grade(0.0, reward=-0.5), grade(0.0)))
    assert shaped.flat
    assert shaped.rewards == [-0.5, 0.0]


def test_prompts_that_are_too_long_are_passed_over_and_counted() -> None:
    engine = FakeEngine()
    sampler = sampler_with(engine, is_flat=lambda _: False, too_long=(1, 2, 5))
    first, second = sampler.next_batch(0, PhaseClock()), sampler.next_batch(1, PhaseClock())
    assert engine.asked() == [[0, 3, 4, 6], [7, 8, 9, 10]]
    assert (first.prompts_dropped, second.prompts_dropped, sampler.cursor) == (3, 0, 11)
    assert first.metrics()["sampling/prompts_dropped"] == 3


def test_a_groups_sequences_carry_place_prompt_response_logprobs_and_advantage() -> None:
    one = group([1.0, 0.0, 0.0], [3, 1, 2], prompt=7)
    sequences = one.sequences(place=5, advantage="rloo")
    assert [sequence.group for sequence in sequences] == [5, 5, 5]
    assert [sequence.advantage for sequence in sequences] == [1.0, -0.5, -0.5]
    assert [len(sequence.response_ids) for sequence in sequences] == [3, 1, 2]
    for sequence, answer in zip(sequences, one.responses, strict=True):
        assert sequence.prompt_ids is one.prompt_ids
        assert sequence.response_ids is answer.token_ids
        assert sequence.rollout_logprobs is answer.logprobs


def test_under_the_optimal_token_baseline_a_sequence_carries_its_reward() -> None:
    sequences = group([1.0, 0.0, 0.5], [3, 1, 2]).sequences(place=0, advantage="optimal_token_baseline")
    assert [sequence.advantage for sequence in sequences] == [1.0, 0.0, 0.5]


def test_metrics_are_over_all_that_was_generated() -> None:
    kept = group([1.0, 0.0], [2, 4])
    flat_right, flat_wrong = group([1.0, 1.0], [6, 6]), group([0.0, 0.0], [8, 10], finished=False)
    unscored = replace(flat_wrong, grades=(grade(0.0, reward=-1.0), grade(0.0, error="took longer than 10 s")))
    metrics = SampledBatch(
        kept=(kept,), generated=(flat_right, kept, flat_wrong, unscored), rounds=2, prompts_dropped=5
    ).metrics()
    assert metrics == pytest.approx(
        {
            "reward/mean": 2 / 8,
            "reward/score_mean": 3 / 8,
            "reward/errors": 1,
            "response/length_mean": 54 / 8,
            "response/length_max": 10,
            "response/length_min": 2,
            "response/length_mean_kept": 3,
            "response/clip_ratio": 4 / 8,
            "sampling/rounds": 2,
            "sampling/groups": 4,
            "sampling/groups_kept": 1,
            "sampling/flat_right": 1 / 4,
            "sampling/flat_wrong": 2 / 4,
            "sampling/prompts_dropped": 5,
            "sampling/tokens": 54,
            "sampling/tokens_dropped": 48,
        }
    )
    assert all(type(value) is float for value in metrics.values())


def test_with_nothing_kept_there_is_no_length_of_what_was_kept() -> None:
    metrics = SampledBatch(kept=(), generated=(group([0.0, 0.0], [2, 2]),), rounds=1, prompts_dropped=0).metrics()
    assert "response/length_mean_kept" not in metrics
    assert metrics["response/length_mean"] == 2
    assert metrics["sampling/tokens_dropped"] == 4
