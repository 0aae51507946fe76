"""The part of the page that is about a study."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sweeps.curves import Curves
from sweeps.html_report.frontier import Frontier, frontier
from sweeps.html_report.importance import Importance, SpaceEntry, importance, read_space
from sweeps.html_report.panels import Panel, panel_html
from sweeps.html_report.study_figures import frontier_panels, importance_panel, slice_panels
from sweeps.html_report.tables import short, shown, tiles, trials_table
from sweeps.report_runs import REFERENCE
from sweeps.study.record import StudyRecord

NONE_FINISHED = "No trial of this study has finished yet; there is nothing to compare."
FRONTIER = (
    "Means over seeds of the complete trials. An arm is on the frontier when no other one reaches at least as much at "
    "as little mismatch."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySection:
    """A study, with what was computed from it.

    StudySection(study=study, space=space, importance=importance, frontier=frontier, shown="the baseline").html()
    """

    study: StudyRecord
    space: dict[str, SpaceEntry]
    importance: Importance
    frontier: Frontier
    shown: str  # which arms the curves show

    @classmethod
    def of(cls, study: StudyRecord, runs: Sequence[Curves], shown: str, file: str) -> "StudySection":
        """Of a study and the runs of all its arms.

        Args:
            study: as its record has it.
            runs: of all its arms.
            shown: which of them the curves show, in words.
            file: of the record, for messages.

        Raises:
            ConfigError: the study's space cannot be used.
        """
        space = read_space(study, file)
        complete = [trial.arm for trial in study.trials if trial.state == "complete"]
        return cls(
            study=study,
            space=space,
            importance=importance(study, space),
            frontier=frontier(runs, [REFERENCE, *complete]),
            shown=shown,
        )

    @property
    def finished(self) -> bool:
        """Whether any trial is complete."""
        return any(trial.state == "complete" for trial in self.study.trials)

    def panels(self) -> list[Panel]:
        """All figures of the section, in their order."""
        return [*self._importance(), *self._slices(), *self._frontier()]

    def html(self) -> str:
        """The section; its figures are drawn by the page's script."""
        parts = [f"<h2>Study</h2><p>{self._told()}</p>", f"<p>{self._best()}</p>", tiles(self.study)]
        if self.study.trials:
            parts += [
                "<h2>Trials</h2><p>Tap a heading to sort. The best trial is marked.</p>",
                trials_table(self.study),
            ]
        if self.finished:
            problem = f"<p>No importance of the parameters: {escape(self.importance.problem)}</p>"
            grid = _grid([*self._importance(), *self._slices()])
            parts.append(f"<h2>Parameters</h2>{problem if self.importance.problem else ''}{grid}")
        if frontier := self._frontier():
            parts.append(f"<h2>Stability frontier</h2><p>{FRONTIER}</p>{_grid(frontier)}")
        return f"<section>{''.join(parts)}</section>"

    def _importance(self) -> list[Panel]:
        return [importance_panel(self.importance)] if self.importance.shares else []

    def _slices(self) -> list[Panel]:
        return slice_panels(self.study, self.space)

    def _frontier(self) -> list[Panel]:
        return frontier_panels(self.study, self.space, self.frontier)

    def _told(self) -> str:
        """Objective, seeds and trials in one sentence."""
        study = self.study
        objective = study.objective
        window = f" of the last {objective.last}" if objective.last else ""
        goal = f"{study.direction} the {objective.aggregate}{window} of <code>{escape(objective.metric)}</code>"
        states = [trial.state for trial in study.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none"
        seeds = ", ".join(map(str, study.seeds))
        sharing = "on" if study.sharing else "off"
        return (
            f"Goal: {goal}. Runs of {study.steps:,} steps, seeds {seeds}; shared prefixes {sharing}. "
            f"Trials: {len(states)} ({counts})."
        )

    def _best(self) -> str:
        if not self.finished:
            return f"<strong>{NONE_FINISHED}</strong>"
        best = self.study.best
        if best is None:
            return "<strong>No complete trial keeps all constraints.</strong>"
        params = ", ".join(f"<code>{escape(short(path))}</code> {escape(shown(v))}" for path, v in best.params.items())
        return f"Best: trial {best.number} with {shown(best.value)}; {params}."


def _grid(panels: list[Panel]) -> str:
    return f'<div class="grid">{"".join(map(panel_html, panels))}</div>' if panels else ""
