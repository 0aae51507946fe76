"""The report on runs that are there: its tables, its figure, its page, and its figures as CSV."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from actors.lr_policies.detector import DetectorConfig
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run.folder import CONFIG, METRICS
from sweeps.curves import Curves
from sweeps.figure import draw
from sweeps.html_report.csv_files import write_curves, write_lines, write_trials
from sweeps.html_report.page import Page
from sweeps.html_report.selection import select
from sweeps.html_report.study_section import NONE_FINISHED, StudySection
from sweeps.html_report.tables import Cell
from sweeps.lead_times import lead_time_table, lead_times
from sweeps.measures import measures
from sweeps.replay_output import replacing
from sweeps.report_runs import check_any
from sweeps.study.record import STUDY, StudyRecord
from sweeps.summary import summary_tables
from sweeps.targets import check_targets

FIGURE = "comparison.png"
REPORT = "report.html"
PAGE, PICTURE = ".html", ".png"


def check_files(out: Path | None, csv: Path | None, folder: Path, detectors: Path | None) -> None:
    """Refuse what cannot be written to, before anything is.

    Args:
        out: the page or the picture; None stands for those in the folder.
        csv: of the figures behind the tables, or None.
        folder: of the runs.
        detectors: the file, or None.

    Raises:
        ConfigError: as `check_targets`, for which all runs and the detectors are sources; or `out` is of another kind.
    """
    recorded = [path for name in (METRICS, CONFIG) for path in folder.glob(f"*/*/{name}")]
    sources = [("a run's own", path) for path in (*recorded, folder / STUDY)]
    sources += [("the detectors", detectors)] if detectors else []
    check_targets({"--out": out or folder / FIGURE, "--csv": csv}, sources)
    if out is not None and out.suffix.lower() not in (PAGE, PICTURE):
        raise ConfigError("--out", "", str(out), f"a file name that ends in {PAGE} or {PICTURE}")
    page = out or folder / REPORT
    if page.suffix.lower() == PAGE:
        check_targets({"--out": page}, sources)
        for beside in csv_files(page).values():
            check_targets({"the CSV beside --out": beside}, sources)


def csv_files(page: Path) -> dict[str, Path]:
    """The files beside a page: `report.csv`, `curves.csv`, `trials.csv`; beside `x.html` they have `x` before them."""
    before = "" if page.stem == Path(REPORT).stem else f"{page.stem}-"
    return {
        "runs": page.with_suffix(".csv"),
        "curves": page.with_name(f"{before}curves.csv"),
        "trials": page.with_name(f"{before}trials.csv"),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is to be told of the runs of a comparison or a study.

    Report.of(runs, Path("runs/demo"), "demo").publish(Path("runs/demo"), None, None, console)
    """

    title: str
    runs: Sequence[Curves]  # of all arms, the reference first; none only where there is a study
    shown: Sequence[Curves]  # those of the arms that tables and figures have
    study: StudySection | None
    detectors: Mapping[str, DetectorConfig]

    @classmethod
    def of(
        cls,
        runs: Sequence[Curves],
        folder: Path,
        title: str,
        detectors: Mapping[str, DetectorConfig] | None = None,
    ) -> "Report":
        """A report on these runs; of a study, it shows the baseline and the best trials.

        Args:
            runs: of all arms, the reference first.
            folder: that holds them, and the record of a study if they belong to one.
            title: stands above the page and the picture.
            detectors: whose lead times it tells, or None.

        Raises:
            ConfigError: there are neither runs nor a study, or the study's record cannot be used.
        """
        study = StudyRecord.read(folder) if (folder / STUDY).exists() else None
        if study is None:
            check_any(runs, folder)
            return cls(title=title, runs=runs, shown=runs, study=None, detectors=detectors or {})
        selection = select(runs, study)
        section = StudySection.of(study, runs, selection.told, str(folder / STUDY))
        return cls(title=title, runs=runs, shown=selection.runs, study=section, detectors=detectors or {})

    def publish(self, folder: Path, out: Path | None, csv: Path | None, console: Console) -> None:
        """Print the tables; write the page and the picture into the folder, or the one that `out` names; then the CSV.

        Raises:
            ConfigError: a file cannot be written.
        """
        if self.study is not None and not self.study.finished:
            console.print(NONE_FINISHED, highlight=False, markup=False)
        if self.shown:
            print_tables(self.shown, self.detectors, console)
        page = out or folder / REPORT
        if page.suffix.lower() == PAGE:
            self.write_page(page, console)
        picture = out or folder / FIGURE
        if picture.suffix.lower() == PICTURE and self.shown:
            write_figure(self.shown, picture, self.title, console)
        if csv is not None:
            write_csv(self.runs, csv)

    def write_page(self, path: Path, console: Console) -> None:
        """Write the page and the CSV files beside it, and say where it is. Each file is whole, or as it was before.

        Raises:
            ConfigError: a file cannot be written.
        """
        tables = summary_tables(self.shown) if self.shown else []
        if self.detectors and self.shown:
            tables.append(lead_time_table(lead_times(self.shown, self.detectors)))
        page = Page(title=self.title, runs=self.shown, tables=tables, study=self.study).html()
        with replacing(path) as partial:
            partial.write_text(page, encoding="utf-8")
        files = csv_files(path)
        write_csv(self.runs, files["runs"])
        write_curves(self.shown, files["curves"])
        if self.study is not None:
            write_trials(self.study.study, files["trials"])
        console.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)


def write_report(runs: Sequence[Curves], folder: Path, title: str, console: Console) -> None:
    """Write the page on these runs into their folder, with the study that it holds, if any.

    Args:
        runs: of all arms, the reference first.
        folder: of the comparison or the study.
        title: stands above it.
        console: for the line that says where it is.

    Raises:
        ConfigError: as `Report.of`; or a file cannot be written.
    """
    Report.of(runs, folder, title).write_page(folder / REPORT, console)


def print_tables(runs: Sequence[Curves], detectors: Mapping[str, DetectorConfig], console: Console) -> None:
    """The table of arms, their differences, and the lead times of the detectors, as far as there are any."""
    unlimited = console.options.update(max_width=10_000)
    for table in summary_tables(runs, lambda table: console.measure(table, options=unlimited).minimum <= console.width):
        console.print(table, markup=False)  # names are shown as they are
    if detectors:
        console.print(lead_time_table(lead_times(runs, detectors)), markup=False)


def write_figure(runs: Sequence[Curves], path: Path, title: str, console: Console) -> None:
    """Draw the figure and say where it is.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        draw(runs, path, title)
    except OSError as error:
        raise ConfigError(str(path), "", MISSING, f"a figure that can be written ({error.strerror})") from None
    console.print(f"figure: {path}", highlight=False, markup=False, soft_wrap=True)


def write_csv(runs: Sequence[Curves], path: Path) -> None:
    """A line per run with the figures behind the tables, in full precision; empty where a run has none.

    Raises:
        ConfigError: the file cannot be written.
    """
    columns = measures(runs)
    header = ["arm", "seed", "steps", "collapse_step", "collapse_reason"]
    header += [re.sub(r"\W+", "_", measure.heading) for measure in columns]
    lines: list[list[Cell]] = []
    for run in runs:
        verdict = run.verdict()
        collapse = [verdict.step, verdict.reason] if verdict else [None, None]
        figures = [None if math.isnan(value := measure.of(run)) else value for measure in columns]
        lines.append([run.arm, run.seed, len(run.steps), *collapse, *figures])
    write_lines(path, header, lines)
