"""The tables that set arms side by side: figures with intervals over seeds, collapses, events, paired differences."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

from sweeps.curves import Curves
from sweeps.intervals import Interval, mean_interval, paired_difference
from sweeps.measures import WINDOW, Measure, measures

Arms = Mapping[str, Sequence[Curves]]  # the runs of each arm, the reference first


def summary_tables(runs: Sequence[Curves], fits: Callable[[Table], bool] = lambda _: True) -> list[Table]:
    """The table of arms and, when there are several, that of the differences from the first one.

    Args:
        runs: the reference arm first.
        fits: whether a table has room; one with too many arms becomes several with fewer.
    """
    arms = by_arm(runs)
    reference, *others = arms
    parts = _split(list(arms), lambda names: summary_table({name: arms[name] for name in names}), fits)
    return parts + _split(others, lambda names: difference_table({n: arms[n] for n in (reference, *names)}), fits)


def _split(names: Sequence[str], build: Callable[[Sequence[str]], Table], fits: Callable[[Table], bool]) -> list[Table]:
    """Tables of all names, as many in each as fit, and one at least."""
    tables: list[Table] = []
    while names:
        count = next((some for some in range(len(names), 1, -1) if fits(build(names[:some]))), 1)
        tables.append(build(names[:count]))
        names = names[count:]
    return tables


def by_arm(runs: Sequence[Curves]) -> dict[str, list[Curves]]:
    """The runs of each arm, arms and runs in the order in which they come."""
    arms: dict[str, list[Curves]] = defaultdict(list)
    for run in runs:
        arms[run.arm].append(run)
    return dict(arms)


def summary_table(arms: Arms) -> Table:
    """A column per arm: mean over its seeds with a 95% interval, collapses, and what happened to the learning rate.

    Runs may differ in their steps, as when a collapse has stopped one: first, best and last are each run's own.
    """
    title = f"means over seeds [95% interval]; reward, length, mismatch: means of {WINDOW} steps"
    table = Table("", *arms, title=title, title_justify="left")
    table.add_row("seeds", *[", ".join(str(run.seed) for run in runs) for runs in arms.values()])
    table.add_row("steps", *[_range([len(run.steps) for run in runs]) for runs in arms.values()])
    for measure in measures([run for runs in arms.values() for run in runs]):
        table.add_row(measure.heading, *[_figure(measure, runs) for runs in arms.values()])
    table.add_row("collapsed", *[_collapses(runs) for runs in arms.values()])
    table.add_row("events", *[_events(runs) for runs in arms.values()])
    return table


def difference_table(arms: Arms) -> Table:
    """A column per arm but the first: arm minus first arm, over the seeds that both have."""
    (reference, base), *others = arms.items()
    title = f"differences from {reference} over common seeds, mean [95% interval]"
    table = Table("", *[arm for arm, _ in others], title=title, title_justify="left")
    common = [sorted({run.seed for run in runs} & {run.seed for run in base}) for _, runs in others]
    table.add_row("common seeds", *[", ".join(map(str, seeds)) or "none" for seeds in common])
    for measure in measures([run for runs in arms.values() for run in runs]):
        if measure.compared:
            differences = [paired_difference(_by_seed(measure, runs), _by_seed(measure, base)) for _, runs in others]
            cells = [
                _interval(measure, difference, len(seeds), sign="+")
                for difference, seeds in zip(differences, common, strict=True)
            ]
            table.add_row(measure.heading, *cells)
    return table


def _by_seed(measure: Measure, runs: Sequence[Curves]) -> dict[int, float]:
    return {run.seed: measure.of(run) for run in runs}


def _figure(measure: Measure, runs: Sequence[Curves]) -> str:
    return _interval(measure, mean_interval(_by_seed(measure, runs)), len(runs))


def _interval(measure: Measure, interval: Interval | None, num_runs: int, sign: str = "") -> str:
    """`0.620 [0.58, 0.67]`, with the number of seeds behind it when some have no such figure."""
    if interval is None:
        return "-"
    spec = sign + measure.spec
    lines = [measure.write(interval.mean, spec)]
    if interval.num_seeds > 1:
        spec = spec.replace(".2e", ".1e")
        lines.append(f"[{measure.write(interval.low, spec)}, {measure.write(interval.high, spec)}]")
    if interval.num_seeds < num_runs:
        lines.append(f"({interval.num_seeds} of {num_runs} seeds)")
    return "\n".join(lines)


def _collapses(runs: Sequence[Curves]) -> str:
    """`2 of 3 (67%), steps 310-340: reward`."""
    verdicts = [verdict for run in runs if (verdict := run.verdict())]
    count = f"{len(verdicts)} of {len(runs)}"
    if not verdicts:
        return count
    steps = [verdict.step for verdict in verdicts]
    share = f" ({len(verdicts) / len(runs):.0%})" if len(runs) > 1 else ""
    reasons = ", ".join(sorted({verdict.reason for verdict in verdicts}))
    return f"{count}{share}, {_counted('step', steps)} {_range(steps)}: {reasons}"


def _events(runs: Sequence[Curves]) -> str:
    """`surge 12; decay 21, 42, 63; floor 63`; of several runs a line for those in which the same happened."""
    seeds: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        seeds[_told(run.events())].append(run.seed)
    if len(runs) == 1:
        return next(iter(seeds))
    return "\n".join(f"{_counted('seed', those)} {', '.join(map(str, those))}: {told}" for told, those in seeds.items())


def _told(events: Sequence[tuple[int, str]]) -> str:
    steps: dict[str, list[int]] = defaultdict(list)
    for step, event in events:
        steps[event].append(step)
    return "; ".join(f"{event} {', '.join(map(str, at))}" for event, at in steps.items()) or "none"


def _counted(noun: str, those: Sequence[int]) -> str:
    return noun if len(set(those)) == 1 else f"{noun}s"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"
