"""Messages as plain bytes on their way to a worker and back, for those of many small arrays.

Ray sees to each array and each object by itself, in Python; the standard pickler does all of a message in one go.
"""

import pickle
from typing import Any

from ray import cloudpickle


def packed(value: Any) -> bytes:
    """A value as bytes. Ray's own pickler takes over where the standard one cannot name what is in it."""
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        data: bytes = cloudpickle.dumps(value)
        return data


def unpacked(data: bytes) -> Any:
    """Take `packed` back."""
    return pickle.loads(data)


class TakesPacked:
    """What every actor can do beside the methods of its class."""

    def call_packed(self, message: bytes) -> bytes:
        """Call a method of one argument; the message is the packed name of the method with the argument."""
        method, item = unpacked(message)
        return packed(getattr(self, method)(item))
