"""What is added to every process of a vLLM engine: the gloo backend, a way out of a broken update, an end in time.

An engine on one GPU runs in its actor's own process; one that is split over several has a process for each.
"""

import multiprocessing
import os
from threading import Thread
from time import sleep
from typing import Any

import actors.gloo_transfer  # noqa: F401 - registers the gloo backend

ORDERLY_END_S = 5.0  # for vLLM's own shutdown, which may wait for a collective operation that nobody else joins


class EngineProcess:
    """Mixed into vLLM's worker class: named as its `worker_extension_cls`."""

    def abandon_weight_update(self) -> None:
        """End an update that was cut off, so that another can begin. The weights are then neither old nor new."""
        worker: Any = self
        worker._weight_update_active = True  # vLLM takes an update that failed for ended; its layers are still open
        worker.finish_weight_update()


def end_with_parent() -> None:
    """Have this process end soon after the one that started it, however that ends.

    vLLM's own watch asks the process to end, which one that is inside a collective operation cannot do.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:  # else the engine is in the actor's own process
        Thread(target=_end_after, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    sleep(ORDERLY_END_S)
    os._exit(1)


end_with_parent()
