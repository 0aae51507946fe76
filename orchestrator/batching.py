"""Dividing a step's sequences over learner ranks and micro-batches."""

from collections.abc import Sequence

from actors.messages import LearnerShard, TrainSequence


def shard_batch(sequences: Sequence[TrainSequence], ranks: int, tokens_per_microbatch: int) -> list[LearnerShard]:
    """One shard per rank, all with the same number of micro-batches (FSDP2 hangs otherwise).

    Sequences are dealt out by falling length, so that ranks get like amounts of work and micro-batches little padding.

    Args:
        sequences: of the whole step.
        ranks: number of learner ranks.
        tokens_per_microbatch: rows times padded width of a micro-batch; a longer sequence is alone in its own.
    """
    longest_first = sorted(range(len(sequences)), key=lambda i: -_length(sequences[i]))
    packed = [
        pack([sequences[i] for i in _dealt(longest_first, rank, ranks)], tokens_per_microbatch) for rank in range(ranks)
    ]
    count = max(len(microbatches) for microbatches in packed)
    num_tokens = sum(len(sequence.response_ids) for sequence in sequences)
    return [
        LearnerShard(
            microbatches=tuple([*microbatches, *[()] * (count - len(microbatches))]),
            num_tokens=num_tokens,
            num_sequences=len(sequences),
        )
        for microbatches in packed
    ]


def pack(sequences: Sequence[TrainSequence], budget: int) -> list[tuple[TrainSequence, ...]]:
    """Consecutive sequences, longest first, in micro-batches whose padded size stays within the budget."""
    microbatches: list[list[TrainSequence]] = []
    for sequence in sequences:
        width = _length(microbatches[-1][0]) if microbatches else 0
        if not microbatches or width * (len(microbatches[-1]) + 1) > budget:
            microbatches.append([])
        microbatches[-1].append(sequence)
    return [tuple(microbatch) for microbatch in microbatches]


def _dealt(order: Sequence[int], rank: int, ranks: int) -> list[int]:
    """Like cards, back and forth: the first rank does not get the longest of every round."""
    return [
        index
        for place, index in enumerate(order)
        if (place % ranks if (place // ranks) % 2 == 0 else ranks - 1 - place % ranks) == rank
    ]


def _length(sequence: TrainSequence) -> int:
    return len(sequence.prompt_ids) + len(sequence.response_ids)
