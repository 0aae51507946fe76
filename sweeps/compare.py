"""A comparison: every arm with every seed, one after the other, then the table and the figure."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from actors.faults import Faults
from cluster.session import Session
from orchestrator.config import ExperimentConfig
from orchestrator.experiment import Experiment, RunSpec
from orchestrator.model_files import ModelFiles
from orchestrator.records import RunCard
from orchestrator.run_folder import run_path
from orchestrator.tracking import TrackedRun, Tracker, version_tags
from sweeps.curves import Curves
from sweeps.report import FIGURE, print_tables, write_figure


class Comparison:
    """All arms x seeds of one experiment.

    Comparison(arms, models, Faults(), Path("runs"), console).run(tracker, session)
    """

    def __init__(
        self,
        arms: Mapping[str, ExperimentConfig],
        models: Mapping[str, ModelFiles],
        faults: Faults,
        runs: Path,
        console: Console,
    ) -> None:
        """Define the comparison; nothing runs yet.

        Args:
            arms: resolved config of each arm; name and seeds are the same in all.
            models: where each arm's model is.
            faults: what goes wrong by request.
            runs: folder that holds all runs.
            console: for progress and the table.
        """
        self._arms = arms
        self._models = models
        self._faults = faults
        self._runs = runs
        self._console = console
        self._config = next(iter(arms.values()))

    def run(self, tracker: Tracker, session: Session) -> None:
        """Run everything. An interruption or a failure still leaves the table and figure of what was recorded."""
        parent = self._track(tracker)
        status = "FAILED"
        started: list[RunSpec] = []
        try:
            for spec in self._specs():
                experiment = Experiment(spec, session, self._console)
                started.append(spec)
                experiment.run(tracker, parent)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            try:
                self._conclude(started, parent)
            finally:
                parent.end(status)

    def _specs(self) -> list[RunSpec]:
        return [self._spec(arm, seed) for seed in self._config.seeds for arm in self._arms]

    def _spec(self, arm: str, seed: int) -> RunSpec:
        return RunSpec(
            config=self._arms[arm],
            model=self._models[arm],
            arm=arm,
            seed=seed,
            folder=run_path(self._runs, self._config.name, arm, seed),
            faults=self._faults,
        )

    def _conclude(self, started: list[RunSpec], parent: TrackedRun) -> None:
        curves = [Curves.read(spec.folder, spec.arm, spec.seed) for spec in started]
        curves = [curve for curve in curves if len(curve.steps)]
        if not curves:
            return
        figure = self._runs / self._config.name / FIGURE
        print_tables(curves, {}, self._console)
        write_figure(curves, figure, self._config.name, self._console)
        parent.log_artifact(figure)

    def _track(self, tracker: Tracker) -> TrackedRun:
        schedulers = {arm: config.model_dump(mode="json", include={"scheduler"}) for arm, config in self._arms.items()}
        card = RunCard(
            experiment=self._config.tracking.experiment or self._config.name,
            name=f"{self._config.name} comparison",
            tags={"arms": ", ".join(self._arms), "seeds": ", ".join(map(str, self._config.seeds)), **version_tags()},
            params=schedulers,
        )
        return TrackedRun(tracker, card)
