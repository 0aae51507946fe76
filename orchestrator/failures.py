"""What is known to go wrong in a run and is told in one line; everything else is a bug and shows its traceback."""

import sys

# Where they are defined. A module that was never loaded cannot have raised, and is not loaded to find out.
FAILURES = (
    ("cluster.placement", "PlacementError"),
    ("cluster.worker", "WorkerLost"),
    ("orchestrator.crew.restarts", "RestartsExhausted"),
    ("orchestrator.checkpoints.writer", "CheckpointFailed"),
    ("actors.storage.remote_folder", "StorageError"),
    ("orchestrator.disk", "DiskTooSmall"),
    ("orchestrator.run.folder", "RunFolderFull"),
    ("orchestrator.bench.bare_process", "BareFailed"),
    ("actors.model_export", "ExportFailed"),
    ("cluster.worker", "WorkerFailed"),
    ("orchestrator.self_test", "WeightSyncError"),
    ("orchestrator.step", "StaleWeights"),
    ("actors.rollout_worker", "PrefixCacheKept"),
    ("actors.rollout_worker", "IncompleteUpdate"),
    ("actors.policy_model", "UnsupportedModel"),
    ("actors.attention", "AttentionUnavailable"),
    ("actors.compilation", "CompilerMissing"),
    ("actors.logprob_pairs", "NonFiniteLogprob"),
)


def known_failures() -> tuple[type[Exception], ...]:
    """The exception types of such failures."""
    loaded = [getattr(sys.modules[module], name) for module, name in FAILURES if module in sys.modules]
    return (ConnectionError, *loaded)
