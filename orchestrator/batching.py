"""Dividing a step's sequences over learner ranks and micro-batches."""

from collections.abc import Sequence

from actors.messages import LearnerShard, TrainSequence

Microbatch = tuple[TrainSequence, ...]


def shard_batch(
    sequences: Sequence[TrainSequence],
    ranks: int,
    tokens_per_microbatch: int,
    *,
    halves: bool = False,
    whole_groups: bool = False,
) -> list[LearnerShard]:
    """One shard per rank, all with the same number of micro-batches (FSDP2 hangs otherwise).

    Sequences are dealt out by falling length, so that ranks get like amounts of work and micro-batches little padding.

    Args:
        sequences: of the whole step.
        ranks: number of learner ranks.
        tokens_per_microbatch: rows times padded width of a micro-batch; a longer sequence is alone in its own.
        halves: first the micro-batches of half 1, then those of half 2; each half the same number on every rank.
        whole_groups: keep all responses to a prompt on one rank.
    """
    parts = [[one for one in sequences if one.group % 2 == half] for half in range(2)] if halves else [list(sequences)]
    packed = [_shard_part(part, ranks, tokens_per_microbatch, whole_groups) for part in parts]
    num_tokens = sum(len(sequence.response_ids) for sequence in sequences)
    return [
        LearnerShard(
            microbatches=tuple(microbatch for part in packed for microbatch in part[rank]),
            num_first_half=len(packed[0][rank]) if halves else None,
            num_tokens=num_tokens,
            num_sequences=len(sequences),
        )
        for rank in range(ranks)
    ]


def pack(sequences: Sequence[TrainSequence], budget: int) -> list[Microbatch]:
    """Consecutive sequences, longest first, in micro-batches whose padded size stays within the budget."""
    microbatches: list[list[TrainSequence]] = []
    for sequence in sequences:
        width = _length(microbatches[-1][0]) if microbatches else 0
        if not microbatches or width * (len(microbatches[-1]) + 1) > budget:
            microbatches.append([])
        microbatches[-1].append(sequence)
    return [tuple(microbatch) for microbatch in microbatches]


def _shard_part(
    sequences: Sequence[TrainSequence], ranks: int, budget: int, whole_groups: bool
) -> list[list[Microbatch]]:
    """The micro-batches of each rank, filled up with empty ones to the same number."""
    units = sorted(_units(sequences, whole_groups), key=lambda unit: -sum(map(_length, unit)))
    packed = []
    for rank in range(ranks):
        mine = [sequence for unit in _dealt(units, rank, ranks) for sequence in unit]
        packed.append(pack(sorted(mine, key=lambda sequence: -_length(sequence)), budget))
    count = max(len(microbatches) for microbatches in packed)
    return [[*microbatches, *[()] * (count - len(microbatches))] for microbatches in packed]


def _units(sequences: Sequence[TrainSequence], whole_groups: bool) -> list[list[TrainSequence]]:
    """What must stay together: the responses to a prompt, or each sequence on its own."""
    if not whole_groups:
        return [[sequence] for sequence in sequences]
    groups: dict[int, list[TrainSequence]] = {}
    for sequence in sequences:
        groups.setdefault(sequence.group, []).append(sequence)
    return list(groups.values())


def _dealt(units: Sequence[list[TrainSequence]], rank: int, ranks: int) -> list[list[TrainSequence]]:
    """Like cards, back and forth: the first rank does not get the longest of every round."""
    places = (
        start + (rank if (start // ranks) % 2 == 0 else ranks - 1 - rank) for start in range(0, len(units), ranks)
    )
    return [units[place] for place in places if place < len(units)]


def _length(sequence: TrainSequence) -> int:
    return len(sequence.prompt_ids) + len(sequence.response_ids)
