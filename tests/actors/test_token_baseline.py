"""The optimal token baseline against loops over its formula; score norms against the scores themselves."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import actors.token_baseline
from actors.token_baseline import optimal_token_baseline, score_norms

# A group of responses: reward and score norms of each, ragged, some of them empty or certain of every token.
norm = st.one_of(st.just(0.0), st.floats(1e-6, 2.0))
groups = st.lists(st.tuples(st.floats(-3, 3), st.lists(norm, max_size=6)), min_size=1, max_size=6)


def baseline_by_loops(rewards: list[float], norms: list[list[float]]) -> list[list[float]]:
    """docs/method.md section 6, one token at a time."""
    baselines = []
    for mine in norms:
        baselines.append([])
        for t in range(len(mine)):
            alive = [i for i, other in enumerate(norms) if len(other) > t]
            energy = {i: sum(norms[i][: t + 1]) for i in alive}
            if sum(energy.values()) > 0:
                baselines[-1].append(sum(rewards[i] * energy[i] for i in alive) / sum(energy.values()))
            else:
                baselines[-1].append(sum(rewards[i] for i in alive) / len(alive))
    return baselines


def random_softmax(seed: int, tokens: int, vocabulary: int, sharpness: float) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).normal(size=(tokens, vocabulary))
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(actors.token_baseline) == (0, 1)


@given(groups)
def test_the_baseline_is_that_of_plain_loops(group: list[tuple[float, list[float]]]) -> None:
    rewards, norms = [reward for reward, _ in group], [one for _, one in group]
    ours = optimal_token_baseline(rewards, [np.array(one) for one in norms])
    expected = baseline_by_loops(rewards, norms)
    assert [len(one) for one in ours] == [len(one) for one in norms]
    for one, other in zip(ours, expected, strict=True):
        assert one.tolist() == pytest.approx(other, rel=1e-9, abs=1e-12)


def test_the_first_token_weighs_by_its_own_norm_and_later_ones_by_all_up_to_them() -> None:
    one, two = optimal_token_baseline([1.0, 0.0], [np.array([0.5, 0.1]), np.array([0.5, 1.0])])
    assert one.tolist() == two.tolist() == pytest.approx([0.5, 0.6 / 2.1])


def test_where_all_energies_are_zero_the_baseline_is_the_mean_of_those_still_alive() -> None:
    rewards = [1.0, 0.0, 5.0]
    baselines = optimal_token_baseline(rewards, [np.zeros(2), np.zeros(2), np.zeros(1)])
    assert [one.tolist() for one in baselines] == [[2.0, 0.5], [2.0, 0.5], [2.0]]


def test_a_response_that_outlives_the_others_is_its_own_baseline() -> None:
    short, long = optimal_token_baseline([0.0, 2.0], [np.ones(1), np.ones(3)])
    assert short.tolist() == [1.0]
    assert long.tolist() == [1.0, 2.0, 2.0]


def test_no_responses_and_no_tokens_have_no_baseline() -> None:
    assert optimal_token_baseline([], []) == []
    assert [len(one) for one in optimal_token_baseline([1.0, 0.0], [np.empty(0), np.empty(0)])] == [0, 0]


@given(st.integers(0, 2**16), st.integers(2, 40), st.floats(0, 8))
def test_score_norms_are_the_squared_norms_of_onehot_minus_softmax(
    seed: int, vocabulary: int, sharpness: float
) -> None:
    softmax = random_softmax(seed, 5, vocabulary, sharpness)
    tokens = np.random.default_rng(seed).integers(0, vocabulary, 5)
    logprobs = np.log(np.maximum(softmax[np.arange(5), tokens], 1e-300))
    expected = np.square(np.eye(vocabulary)[tokens] - softmax).sum(axis=1)
    norms = score_norms(logprobs, np.square(softmax).sum(axis=1))
    np.testing.assert_allclose(norms, expected, rtol=1e-9, atol=1e-12)


def test_the_score_norm_of_a_certain_token_is_zero_and_never_below() -> None:
    assert score_norms(np.array([0.0]), np.array([1.0])).tolist() == [0.0]
    certain = score_norms(np.float32([-1e-7, 0.0]), np.float32([0.9999998, 0.9999999]))
    assert certain.dtype == np.float64
    assert (certain >= 0).all() and (certain < 1e-6).all()
