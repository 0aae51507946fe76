"""The stand-in for a rollout worker: what it answers, and on what that depends."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from actors.messages import Response, SampleRequest
from actors.simulated.config import Ramp, SecondsConfig, SimulationConfig
from actors.simulated.rollout_worker import SimulatedEngineSpec, SimulatedRolloutWorker, positions_of
from orchestrator.model_files import embedded_model

NO_TIME = SecondsConfig(start=0, generate=0, gradients=0, apply=0, publish=0)
SIMULATION = SimulationConfig(
    seconds=NO_TIME,
    response_tokens=Ramp(first=10.0, last=40.0, middle=10.0, width=5.0),
    correct=Ramp(first=0.0, last=1.0, middle=10.0, width=5.0),
)
PROMPT = "47+85="


def engine(index: int = 0, simulation: SimulationConfig = SIMULATION, limit: int = 64) -> SimulatedRolloutWorker:
    worker = SimulatedRolloutWorker(
        SimulatedEngineSpec(
            config=simulation, model=embedded_model(), index=index, max_model_len=512, max_response_tokens=limit
        )
    )
    assert worker.start().max_model_len == 512
    return worker


def request(*seeds: int, temperature: float | None = None) -> SampleRequest:
    ids = AutoTokenizer.from_pretrained(embedded_model()).encode(PROMPT)
    return SampleRequest(prompt_ids=np.array(ids, np.int32), seeds=seeds, temperature=temperature)


def plain(responses: list[tuple[Response, ...]]) -> list[tuple[object, ...]]:
    return [
        (one.token_ids.tolist(), one.logprobs.tolist(), one.finished, one.weight_version)
        for of_prompt in responses
        for one in of_prompt
    ]


def lengths(worker: SimulatedRolloutWorker, number: int = 400) -> list[int]:
    [responses] = worker.generate([request(*range(number))])
    return [len(one.token_ids) for one in responses]


def test_answers_come_in_the_order_of_requests_and_seeds_with_a_log_prob_for_each_token() -> None:
    answered = engine().generate([request(1, 2), request(3)])
    assert [len(of_prompt) for of_prompt in answered] == [2, 1]
    for of_prompt in answered:
        for response in of_prompt:
            assert response.token_ids.dtype == np.int32
            assert response.logprobs.shape == response.token_ids.shape
            assert (response.logprobs < 0).all()


def test_an_answer_depends_on_weights_prompt_and_seed_alone_whoever_gives_it() -> None:
    one, other = engine(0), engine(1)
    together = plain(one.generate([request(1, 2), request(3)]))
    assert together == plain(other.generate([request(3)]) + other.generate([request(1, 2)]))[1:] + together[-1:]
    other.receive({"lm_head.weight": 0.3}, 0)
    assert plain(other.generate([request(3)])) != plain(one.generate([request(3)]))


def test_seeds_do_not_count_at_temperature_zero() -> None:
    [responses] = engine().generate([request(1, 2, temperature=0.0)])
    assert plain([responses[:1]]) == plain([responses[1:]])


def test_responses_grow_and_become_right_with_the_weight_version() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    worker = engine()
    early = lengths(worker)
    worker.receive({}, 30)
    late = lengths(worker)
    assert 9 <= np.median(early) <= 11
    assert 37 <= np.median(late) <= 43
    [responses] = worker.generate([request(*range(20))])
    finished = [one for one in responses if one.finished]
    assert finished
    assert all(tokenizer.decode(one.token_ids, skip_special_tokens=True).endswith("#132") for one in finished)
    assert {one.weight_version for one in responses} == {30}


def test_a_response_is_cut_at_the_limit_and_says_so() -> None:
    [responses] = engine(limit=8).generate([request(*range(50))])
    assert max(len(one.token_ids) for one in responses) == 8
    assert {one.finished for one in responses} == {True, False}
    [short] = engine().generate([request(1)], max_tokens=3)
    assert len(short[0].token_ids) <= 3


def test_nothing_asked_is_nothing_answered() -> None:
    assert engine().generate([]) == []


@pytest.mark.parametrize("counts", [[1], [2, 3], [4, 1, 2]])
def test_places_are_counted_within_each_response(counts: list[int]) -> None:
    assert positions_of(counts).tolist() == [place for count in counts for place in range(count)]
