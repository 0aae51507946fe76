"""A comparison: every arm with every seed, one after the other, then the table and the figure."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from rich.console import Console

from cluster.session import Session
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.experiment import Experiment, RunSpec
from orchestrator.records import RunCard
from orchestrator.run_folder import run_path
from orchestrator.tracking import TrackedRun, Tracker, version_tags
from sweeps.curves import Curves
from sweeps.report import FIGURE, print_tables, write_figure

COMPARISON = "comparison.json"  # beside the arms


class Comparison:
    """All arms x seeds of one experiment.

    Comparison(specs, Path("runs"), console).run(tracker, session)
    """

    def __init__(self, arms: Sequence[RunSpec], runs: Path, console: Console) -> None:
        """Define the comparison; nothing runs yet.

        Args:
            arms: a run of each arm; the others differ from it in seed and folder. All have the same name and seeds.
            runs: folder that holds all runs.
            console: for progress and the table.
        """
        self._arms = arms
        self._runs = runs
        self._console = console
        self._config = arms[0].config

    def run(self, tracker: Tracker, session: Session) -> None:
        """Run everything. An interruption or a failure still leaves the table and figure of what was recorded."""
        parent = self._track(tracker)
        status = "FAILED"
        started: list[RunSpec] = []
        try:
            for spec in self.specs():
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

    def specs(self) -> list[RunSpec]:
        """All runs, in their order."""
        return [self._spec(arm, seed) for seed in self._config.seeds for arm in self._arms]

    def _spec(self, arm: RunSpec, seed: int) -> RunSpec:
        return replace(arm, seed=seed, folder=run_path(self._runs, self._config.name, arm.arm, seed))

    def _uid(self) -> str:
        """What MLflow knows the comparison by: a new one, or when it goes on that of before."""
        kept = self._runs / self._config.name / COMPARISON
        try:
            if self._arms[0].resume and kept.exists():
                return str(json.loads(kept.read_text(encoding="utf-8"))["uid"])
            uid = uuid4().hex
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"uid": uid}) + "\n", encoding="utf-8")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                str(kept), "uid", MISSING, f"what an earlier comparison has left there ({error})"
            ) from None
        return uid

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
        schedulers = {arm.arm: arm.config.model_dump(mode="json", include={"scheduler"}) for arm in self._arms}
        card = RunCard(
            uid=self._uid(),
            experiment=self._config.tracking.experiment or self._config.name,
            name=f"{self._config.name} comparison",
            tags={
                "arms": ", ".join(arm.arm for arm in self._arms),
                "seeds": ", ".join(map(str, self._config.seeds)),
                **version_tags(),
            },
            params=schedulers,
        )
        return TrackedRun(tracker, card)
