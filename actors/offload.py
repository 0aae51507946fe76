"""An optimiser's moments in host memory, but for the time of an update."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MOMENTS = ("exp_avg", "exp_avg_sq")  # the step counts of AdamW are in host memory as it is


class OffloadedMoments:
    """Keeps the moments of an AdamW in host memory.

    moments = OffloadedMoments(optimizer, torch.device("cuda"))
    with moments.fetched():
        optimizer.step()
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        """Define the keeper.

        Args:
            optimizer: whose moments.
            device: where an update needs them.
        """
        self._optimizer = optimizer
        self._device = device

    @contextmanager
    def fetched(self) -> Iterator[None]:
        """The moments are on the device for the length of a with-block."""
        self._move(self._device)
        try:
            yield
        finally:
            self.put_away()

    def put_away(self) -> None:
        """Bring to host memory whatever is not there: after they were loaded, say."""
        self._move(torch.device("cpu"))

    def _move(self, to: torch.device) -> None:
        for state in self._optimizer.state.values():
            for kind in MOMENTS:
                state[kind] = state[kind].to(to, non_blocking=True)  # into pinned memory, on the way to the host
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the copies are there before anybody reads them
