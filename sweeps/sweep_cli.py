"""The command that runs a study."""

import threading
from dataclasses import replace
from typing import Annotated

import typer

from orchestrator.cli import RUNS, ResumeOption, RunsOption, SetOption, console, faults_from_environment, tracking
from orchestrator.experiment_file import DEFAULT_ARM
from orchestrator.model_files import find_model

SweepArgument = Annotated[str, typer.Argument(metavar="S.yaml", help="sweep file")]


def sweep(
    file: SweepArgument, overrides: SetOption = None, runs: RunsOption = RUNS, resume: ResumeOption = False
) -> None:
    """Search for the best thresholds with Optuna; trials share the steps that they decide alike."""
    from sweeps.sweep_file import SweepFile

    swept = SweepFile.read(file, overrides or [])
    config = swept.baseline_config()
    model = find_model(config, swept.experiment.path)
    from cluster.session import check_cluster, session
    from orchestrator.checkpoints.storage_check import check_storage
    from orchestrator.crew.plans import plan_of

    check_storage([config.checkpoint], swept.experiment.path)
    if not resume:  # else the trials may be over
        check_cluster(config.cluster, [plan_of(config)])
    from orchestrator.crew.crews import Crews
    from orchestrator.experiment import check_problems
    from orchestrator.run_spec import RunSpec
    from orchestrator.task_problems import TaskFiles
    from sweeps.study.conclusion import concluding, parent_run
    from sweeps.study.storage import StudyStore
    from sweeps.study.study import Study
    from sweeps.study.trial import Grounds

    template = RunSpec(
        config=config,
        model=model,
        task=TaskFiles.open(config, swept.experiment.path),
        arm=DEFAULT_ARM,
        seed=config.seeds[0],
        folder=runs,
        faults=faults_from_environment(),
        quiet=True,
    )
    check_problems(template)
    folder = runs / swept.name
    interrupted = threading.Event()
    with tracking(config, runs) as tracker:
        store = StudyStore.open(swept, folder, resume=resume)
        parent = parent_run(swept, store.uid, tracker)
        with (
            concluding(swept, runs, store, parent, console),
            session(config.cluster) as ray_session,
            Crews(replace(ray_session, shared=swept.config.parallel > 1), warm=True) as crews,
        ):
            grounds = Grounds(
                sweep=swept,
                template=template,
                runs=runs,
                crews=crews,
                tracker=tracker,
                parent=parent,
                console=console,
                interrupted=interrupted.is_set,
            )
            record = Study(grounds, store, interrupted).run()
    if record.has_failed:
        raise typer.Exit(1)
