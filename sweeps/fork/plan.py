"""What a run could begin with: of all recorded runs and their checkpoints, those that leave the fewest steps to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checkpoints.place import Place
from orchestrator.config import ExperimentConfig
from sweeps.fork.divergence import divergence
from sweeps.fork.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A recorded run up to one of its checkpoints, or all of it.

    Example:
        Beginning(source=Path("runs/thresholds/baseline/seed-0"), steps=40,
                  checkpoint=Path("runs/thresholds/baseline/seed-0/checkpoints/step-000040"))
    """

    source: Path  # the folder of the run
    steps: int  # of it that are shared
    checkpoint: Place | None  # its folder; None for all of the run, which is over

    @property
    def whole(self) -> bool:
        """Whether nothing is left to do."""
        return self.checkpoint is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The beginnings that there are, the best first: nobody has looked yet whether its checkpoint is good.

    Example:
        Plan(beginnings=(Beginning(source=Path("runs/thresholds/trial-003/seed-0"), steps=100, checkpoint=None),))
    """

    beginnings: tuple[Beginning, ...]  # at least one

    @property
    def best(self) -> Beginning:
        """The one that leaves the fewest steps to do."""
        return self.beginnings[0]


def best_source(config: ExperimentConfig, seed: int, candidates: Sequence[Path]) -> Plan | None:
    """Look for what a run could begin with.

    A candidate that is not there, cannot be read or is a run of another experiment or seed is passed over. The runs
    in them may go on meanwhile.

    Args:
        config: of the run, an arm merged in.
        seed: of the run.
        candidates: folders of recorded runs; of those that leave as many steps to do, the first is taken.

    Returns:
        None when the run has to begin at its beginning.
    """
    found = [beginning for folder in candidates for beginning in _beginnings(folder, config, seed)]
    found.sort(key=lambda beginning: 0 if beginning.whole else config.steps - beginning.steps)
    return Plan(beginnings=tuple(found)) if found else None


def _beginnings(folder: Path, config: ExperimentConfig, seed: int) -> Iterator[Beginning]:
    source = Source.read(folder, config, seed)
    if source is None:
        return
    same = divergence(config.scheduler, config.steps, source.rows()).at
    if source.end is not None and 0 < same == len(source.lines):
        yield Beginning(source=folder, steps=same, checkpoint=None)
    for step, checkpoint in source.checkpoints().items():
        if 0 < step <= same:
            yield Beginning(source=folder, steps=step, checkpoint=checkpoint)
