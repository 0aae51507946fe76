"""What a driver knows of the Ray job that it was submitted as; loads no ray."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DESCRIBED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # environment variable in which Ray tells a job's driver of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A submitted job, as its driver sees it.

    Example:
        Job(submission_id="raysubmit_Hq3Crap863PTzVbD", runtime_env={"working_dir": "gcs://_ray_pkg_2e044ee0.zip"},
            folder=Path("/tmp/ray/session_latest/runtime_resources/working_dir_files/_ray_pkg_2e044ee0"))
    """

    submission_id: str  # what `ray job logs` and `ray job stop` take
    runtime_env: Mapping[str, Any]
    folder: Path  # where the driver was started

    @classmethod
    def of_this_process(cls) -> "Job | None":
        """The job that this process drives; None where it was not submitted as one."""
        try:
            described = json.loads(os.environ[DESCRIBED])
            return cls(
                submission_id=described["metadata"]["job_submission_id"],
                runtime_env=described.get("runtime_env") or {},
                folder=Path.cwd(),
            )
        except (LookupError, TypeError, ValueError):
            return None

    def has_code(self, root: Path) -> bool:
        """Whether Ray brings the Python packages below `root` to all processes of the job by itself."""
        return "py_modules" in self.runtime_env or ("working_dir" in self.runtime_env and root.resolve() == self.folder)

    def loses(self, path: Path) -> bool:
        """Whether a file there is in the job's own copy of what was submitted, which Ray removes when it likes."""
        return "working_dir" in self.runtime_env and path.resolve().is_relative_to(self.folder)


def job_tags() -> dict[str, str]:
    """For MLflow: which job a run belongs to; nothing where there is none."""
    job = Job.of_this_process()
    return {"ray_submission_id": job.submission_id} if job is not None else {}
