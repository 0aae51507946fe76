"""What is known to go wrong in a run and is told in one line; everything else is a bug and shows its traceback."""

import sys


def known_failures() -> tuple[type[Exception], ...]:
    """The exception types of such failures, as far as their modules were loaded: what was not cannot have raised."""
    places = {
        "cluster.placement": "PlacementError",
        "cluster.pool": "WorkerLost",
        "orchestrator.self_test": "WeightSyncError",
        "actors.rollout_worker": "PrefixCacheKept",
        "actors.policy_model": "UnsupportedModel",
    }
    loaded = [getattr(sys.modules[module], name) for module, name in places.items() if module in sys.modules]
    return (ConnectionError, *loaded)
