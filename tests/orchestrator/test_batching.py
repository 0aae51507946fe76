"""Dividing sequences over ranks and micro-batches: nothing lost, nothing twice, nobody with more of them."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import LearnerShard, TrainSequence
from orchestrator.batching import pack, shard_batch

Sizes = list[tuple[int, int, int]]  # group, prompt length, response length

lengths = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), max_size=40)
grouped = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 20), st.integers(0, 30)), max_size=40)


def sequences_of(sizes: Sequence[tuple[int, int]]) -> list[TrainSequence]:
    """One sequence per (prompt, response) length, known by its advantage; all of group 0."""
    return grouped_sequences([(0, *size) for size in sizes])


def grouped_sequences(sizes: Sequence[tuple[int, int, int]]) -> list[TrainSequence]:
    """One sequence per (group, prompt length, response length), known by its advantage."""
    return [
        TrainSequence(
            group=group,
            prompt_ids=np.zeros(prompt, np.int32),
            response_ids=np.zeros(response, np.int32),
            rollout_logprobs=np.zeros(response, np.float32),
            advantage=float(i),
        )
        for i, (group, prompt, response) in enumerate(sizes)
    ]


def size_of(sequence: TrainSequence) -> int:
    return len(sequence.prompt_ids) + len(sequence.response_ids)


def padded(microbatch: Sequence[TrainSequence]) -> int:
    """Tokens of a micro-batch, padding included."""
    return len(microbatch) * max(map(size_of, microbatch), default=0)


def seen(shards: Sequence[LearnerShard]) -> Counter[float]:
    """How often each sequence occurs, by its advantage."""
    return Counter(one.advantage for shard in shards for microbatch in shard.microbatches for one in microbatch)


@given(sizes=lengths, ranks=st.integers(1, 9), budget=st.integers(1, 200))
def test_every_sequence_is_in_exactly_one_microbatch(sizes: list[tuple[int, int]], ranks: int, budget: int) -> None:
    shards = shard_batch(sequences_of(sizes), ranks, budget)
    assert seen(shards) == Counter(float(i) for i in range(len(sizes)))


@given(sizes=lengths, ranks=st.integers(1, 9), budget=st.integers(1, 200))
def test_all_ranks_have_as_many_microbatches_and_the_totals_of_the_step(
    sizes: list[tuple[int, int]], ranks: int, budget: int
) -> None:
    shards = shard_batch(sequences_of(sizes), ranks, budget)
    assert len(shards) == ranks
    assert len({len(shard.microbatches) for shard in shards}) == 1
    for shard in shards:
        assert shard.num_sequences == len(sizes)
        assert shard.num_tokens == sum(response for _, response in sizes)


@given(sizes=lengths, ranks=st.integers(1, 9), budget=st.integers(1, 200))
def test_no_microbatch_is_over_the_budget_unless_it_is_a_single_sequence(
    sizes: list[tuple[int, int]], ranks: int, budget: int
) -> None:
    for shard in shard_batch(sequences_of(sizes), ranks, budget):
        assert all(padded(microbatch) <= budget or len(microbatch) == 1 for microbatch in shard.microbatches)


@given(sizes=lengths, ranks=st.integers(1, 9))
def test_ranks_differ_by_at_most_one_sequence_and_one_longest_sequence_of_tokens(
    sizes: list[tuple[int, int]], ranks: int
) -> None:
    shards = shard_batch(sequences_of(sizes), ranks, 10_000)
    mine = [[sequence for microbatch in shard.microbatches for sequence in microbatch] for shard in shards]
    counts, tokens = [len(one) for one in mine], [sum(map(size_of, one)) for one in mine]
    assert max(counts) - min(counts) <= 1
    assert max(tokens) - min(tokens) <= max((prompt + response for prompt, response in sizes), default=0)


@given(sizes=lengths, ranks=st.integers(1, 4), budget=st.integers(1, 200))
def test_no_microbatch_could_take_the_first_sequence_of_the_next(
    sizes: list[tuple[int, int]], ranks: int, budget: int
) -> None:
    for shard in shard_batch(sequences_of(sizes), ranks, budget):
        full = [microbatch for microbatch in shard.microbatches if microbatch]
        for one, following in pairwise(full):
            assert padded([*one, following[0]]) > budget


def test_a_step_smaller_than_the_gang_leaves_ranks_with_empty_microbatches() -> None:
    shards = shard_batch(sequences_of([(1, 1)]), ranks=3, tokens_per_microbatch=10)
    assert sorted(len(microbatch) for shard in shards for microbatch in shard.microbatches) == [0, 0, 1]


def test_sequences_are_packed_from_the_longest_on() -> None:
    sequences = sequences_of([(4, 6), (4, 5), (1, 2), (1, 1)])
    packed = pack(sequences, budget=20)
    assert [[size_of(sequence) for sequence in microbatch] for microbatch in packed] == [[10, 9], [3, 2]]


def test_nothing_to_pack_is_no_microbatch() -> None:
    assert pack([], budget=20) == []


def groups_of(microbatches: Sequence[Sequence[TrainSequence]]) -> set[int]:
    return {sequence.group for microbatch in microbatches for sequence in microbatch}


@given(sizes=grouped, ranks=st.integers(1, 50), budget=st.integers(1, 200), whole_groups=st.booleans())
def test_in_halves_every_rank_has_the_even_groups_first_and_then_the_odd_ones(
    sizes: Sizes, ranks: int, budget: int, whole_groups: bool
) -> None:
    shards = shard_batch(grouped_sequences(sizes), ranks, budget, halves=True, whole_groups=whole_groups)
    for shard in shards:
        assert shard.num_first_half is not None
        assert all(group % 2 == 0 for group in groups_of(shard.microbatches[: shard.num_first_half]))
        assert all(group % 2 == 1 for group in groups_of(shard.microbatches[shard.num_first_half :]))


@given(sizes=grouped, ranks=st.integers(1, 50), budget=st.integers(1, 200), whole_groups=st.booleans())
def test_in_halves_all_ranks_run_as_many_microbatches_in_each_half(
    sizes: Sizes, ranks: int, budget: int, whole_groups: bool
) -> None:
    shards = shard_batch(grouped_sequences(sizes), ranks, budget, halves=True, whole_groups=whole_groups)
    assert len(shards) == ranks
    assert len({shard.num_first_half for shard in shards}) == 1
    assert len({len(shard.microbatches) for shard in shards}) == 1
    # No more than someone needs: a half without prompts is no micro-batch at all.
    first = shards[0].num_first_half
    assert (first == 0) == all(group % 2 for group, _, _ in sizes)
    assert (len(shards[0].microbatches) == first) == all(group % 2 == 0 for group, _, _ in sizes)


@given(sizes=grouped, ranks=st.integers(1, 50), halves=st.booleans())
def test_whole_groups_stay_on_one_rank(sizes: Sizes, ranks: int, halves: bool) -> None:
    shards = shard_batch(grouped_sequences(sizes), ranks, 50, halves=halves, whole_groups=True)
    places = Counter(group for shard in shards for group in groups_of(shard.microbatches))
    assert places == Counter({group for group, _, _ in sizes})


@given(
    sizes=grouped,
    ranks=st.integers(1, 50),
    budget=st.integers(1, 200),
    halves=st.booleans(),
    whole_groups=st.booleans(),
)
def test_nothing_is_lost_or_doubled_however_the_batch_is_divided(
    sizes: Sizes, ranks: int, budget: int, halves: bool, whole_groups: bool
) -> None:
    shards = shard_batch(grouped_sequences(sizes), ranks, budget, halves=halves, whole_groups=whole_groups)
    assert seen(shards) == Counter(float(i) for i in range(len(sizes)))
    for shard in shards:
        assert shard.num_sequences == len(sizes)
        assert shard.num_tokens == sum(response for _, _, response in sizes)
        assert all(padded(microbatch) <= budget or len(microbatch) == 1 for microbatch in shard.microbatches)


@given(sizes=grouped, ranks=st.integers(1, 9))
def test_ranks_differ_by_at_most_one_whole_group(sizes: Sizes, ranks: int) -> None:
    shards = shard_batch(grouped_sequences(sizes), ranks, 50, whole_groups=True)
    counts = [len(groups_of(shard.microbatches)) for shard in shards]
    assert max(counts) - min(counts) <= 1


def test_without_halves_there_is_no_first_half() -> None:
    assert [shard.num_first_half for shard in shard_batch(grouped_sequences([(0, 1, 1), (1, 1, 1)]), 2, 10)] == [
        None
    ] * 2


def test_a_rank_without_prompts_of_a_half_gets_empty_microbatches_in_their_place() -> None:
    shards = shard_batch(grouped_sequences([(0, 4, 6), (0, 4, 5), (1, 4, 4)]), 2, 10, halves=True)
    counts = [[len(microbatch) for microbatch in shard.microbatches] for shard in shards]
    assert counts == [[1, 1], [1, 0]]
    assert [shard.num_first_half for shard in shards] == [1, 1]
