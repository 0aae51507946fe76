"""The python reward: a function of the user's, imported and called with nothing taken on trust."""

import importlib
import math
from collections.abc import Callable
from typing import Any

from orchestrator.rewards.config import PythonReward
from orchestrator.rewards.scores import RewardItem, Score, Scorer


class NotAFunction(ValueError):
    """`task.function` names nothing that can be called; the message says why."""


def load_function(name: str) -> Callable[..., Any]:
    """Import `module:function`.

    Raises:
        NotAFunction: the module cannot be imported, has no such name, or what it names cannot be called.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # the module is the user's: it may even call sys.exit
        raise NotAFunction(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise NotAFunction(f"{module_name} has no {function_name}")
    if not callable(function):
        raise NotAFunction(f"{function_name} in {module_name} is a {type(function).__name__}, no function")
    loaded: Callable[..., Any] = function
    return loaded


def user_scorer(config: PythonReward) -> Scorer:
    """What the function returns for (response, answer, source, extra); errors as in `load_function`."""
    function = load_function(config.function)

    def score(item: RewardItem) -> Score:
        value = function(item.response, item.answer, item.source, dict(item.extra))
        if not isinstance(value, int | float):
            return Score.failed(f"returned a {type(value).__name__}, expected a finite number")
        if not math.isfinite(number := float(value)):
            return Score.failed(f"returned {number}, expected a finite number")
        return Score(value=number)

    return score
