"""A comparison: every arm with every seed, one after the other on the same workers, then the table and the figure."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from pydantic_core import from_json
from rich.console import Console

from cluster.session import Session
from orchestrator.cli import PLAIN
from orchestrator.config_errors import ConfigError
from orchestrator.crew.crews import Crews
from orchestrator.experiment import Experiment
from orchestrator.records import RunCard
from orchestrator.run.folder import RunFolderFull, run_path
from orchestrator.run.lock import run_lock
from orchestrator.run_spec import RunSpec
from orchestrator.tracking.tracker import TrackedRun, Tracker, origin_tags
from sweeps.curves import Curves
from sweeps.report import FIGURE, REPORT, print_tables, write_figure, write_report

COMPARISON = "comparison.json"  # beside the arms
UID = re.compile("[0-9a-f]{32}")


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
        self._folder = runs / self._config.name

    def run(self, tracker: Tracker, session: Session) -> None:
        """Run everything. An interruption or a failure still leaves the table and figure of what was recorded.

        Args:
            tracker: the connection to MLflow.
            session: the connection to Ray.

        Raises:
            RunInUse: another process is at work on a comparison of this name; nothing was touched.
            RunFolderFull: its folder or its file there cannot be written.
            ConfigError: everything ran, and then the table or the figure could not be made.
            Others as `Experiment.run`; what fails after such a failure is only a warning.
        """
        with self._held():
            parent = self._track(tracker)
            started: list[RunSpec] = []
            status = "FINISHED"
            try:
                with Crews(session, warm=True) as crews:
                    for spec in self.specs():
                        experiment = Experiment(spec, crews, self._console)
                        started.append(spec)
                        experiment.run(tracker, parent)
            except BaseException as failure:
                status = "KILLED" if isinstance(failure, KeyboardInterrupt) else "FAILED"
                self._conclude_after_failure(started, parent)
                raise
            else:
                self._conclude(started, parent)
            finally:
                parent.end(status)

    def specs(self) -> list[RunSpec]:
        """All runs, in their order."""
        return [self._spec(arm, seed) for seed in self._config.seeds for arm in self._arms]

    def _spec(self, arm: RunSpec, seed: int) -> RunSpec:
        return replace(arm, seed=seed, folder=run_path(self._runs, self._config.name, arm.arm, seed))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The folder of all runs of the comparison, which no other comparison works in meanwhile."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderFull(self._folder, error) from error
        with run_lock(self._folder):
            yield

    def _uid(self) -> str:
        """What MLflow knows the comparison by: a new one, or when it goes on that of before."""
        path = self._folder / COMPARISON
        if self._arms[0].resume and (earlier := self._earlier_uid(path)):
            return earlier
        uid = uuid4().hex
        _write(path, json.dumps({"uid": uid}) + "\n")
        return uid

    def _earlier_uid(self, path: Path) -> str | None:
        try:
            uid = from_json(path.read_bytes())["uid"]
            if UID.fullmatch(uid):
                return str(uid)
            problem = f"its uid is {uid!r}"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        self._warn(f"{path} cannot be used ({problem}); the comparison becomes a new one at MLflow, with the same runs")
        return None

    def _conclude_after_failure(self, started: list[RunSpec], parent: TrackedRun) -> None:
        """As far as that can be done; the failure is what the user must hear of."""
        try:
            self._conclude(started, parent)
        except (ConfigError, OSError) as error:
            with suppress(OSError):  # the screen may be a file on the same full disk
                self._warn(f"no table or no figure of what was recorded: {error}")

    def _conclude(self, started: list[RunSpec], parent: TrackedRun) -> None:
        curves = [Curves.read(spec.folder, spec.arm, spec.seed) for spec in started]
        curves = [curve for curve in curves if len(curve.steps)]
        if not curves:
            return
        figure = self._folder / FIGURE
        print_tables(curves, {}, self._console)
        write_figure(curves, figure, self._config.name, self._console)
        write_report(curves, self._folder, self._config.name, self._console)
        for file in (figure, self._folder / REPORT):
            parent.log_artifact(file)

    def _track(self, tracker: Tracker) -> TrackedRun:
        schedulers = {arm.arm: arm.config.model_dump(mode="json", include={"scheduler"}) for arm in self._arms}
        card = RunCard(
            uid=self._uid(),
            experiment=self._config.tracking.experiment or self._config.name,
            name=f"{self._config.name} comparison",
            tags={
                "arms": ", ".join(arm.arm for arm in self._arms),
                "seeds": ", ".join(map(str, self._config.seeds)),
                **origin_tags(),
            },
            params=schedulers,
        )
        return TrackedRun(tracker, card)

    def _warn(self, text: str) -> None:
        self._console.print(f"warning: {' '.join(text.split())}", style="yellow", **PLAIN)


def _write(path: Path, text: str) -> None:
    """Replace a file: whoever reads it, or after a crash, finds the old one or this one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise RunFolderFull(path, error) from error
