"""A transformers TrainerCallback that lets an Evenkeel policy set the learning rate, made for TRL's GRPOTrainer.

    callback = LrPolicyCallback({"kind": "length_triggered", "lr": 1e-6})
    trainer = GRPOTrainer(..., args=GRPOConfig(logging_steps=1, ...), callbacks=[callback])

**What a decision sees.** The rate of update t (`global_step`, from 0) is decided from the last metrics logged before
it: those of update t - 1 when logging_steps is 1. They cannot be those of t: a callback is given metrics in `on_log`
only, and the trainer logs after `optimizer.step`. It numbers that row t + 1, so a replay of its log decides the same.
A logged row is seen once; where none is new (logging_steps above 1, completions used again) the signal is missing.

**Why `on_step_begin`.** It comes once per update however many batches are accumulated, and before any of them: under
DeepSpeed the real step happens inside `backward`, so `on_pre_optimizer_step` would be too late. The trainer's own
scheduler writes its rate into the optimiser after every update; the next `on_step_begin` puts ours back.

**What is logged.** `evenkeel/lr`, and `evenkeel/event/<event>` = 1: in the log history and for the callbacks that come
after this one. Reporters (W&B and the like) come before unless moved: docs/other-frameworks.md. The trainer's own
`learning_rate` goes on naming what its scheduler would have set; leave that one constant and do not read it.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

from actors.lr_policies import LrDecision, LrPolicy, PolicyConfig, SchedulerConfig

POLICY: TypeAdapter[PolicyConfig] = TypeAdapter(SchedulerConfig)

# TRL's name -> ours. TRL gathers all of them over its processes before it logs, so that all processes decide alike.
TRL_NAMES = {
    "completions/mean_length": "response/length_mean",
    "completions/clipped_ratio": "response/clip_ratio",
    "reward": "reward/mean",
    "entropy": "policy/entropy",
    "grad_norm": "gradient/norm",
    "sampling/sampling_logp_difference/mean": "mismatch/token_abs_diff",
    "sampling/sampling_logp_difference/max": "mismatch/token_abs_diff_max",
}


class LrPolicyCallback(TrainerCallback, ExportableState):
    """Sets the lr of every parameter group before every update; its progress is part of the trainer's checkpoints.

    A resumed run goes on with the same decisions by itself, under the policy given here. (With
    `restore_callback_states_from_checkpoint` transformers rebuilds the callback with the *saved* policy instead.)

    Args:
        policy: a policy's config, or the mapping that stands under `scheduler:` in an experiment file.
        names: the trainer's metric names -> ours, which the policy reads.

    Raises:
        pydantic.ValidationError: `policy` is no valid config.
    """

    def __init__(self, policy: PolicyConfig | Mapping[str, Any], names: Mapping[str, str] = TRL_NAMES) -> None:
        self._config = POLICY.validate_python(policy)
        self._names = dict(names)
        self._start(first_step=0)

    def _start(self, first_step: int) -> None:
        self.policy_state: dict[str, Any] | None = None
        self.row: dict[str, float | None] = {}  # logged, not yet seen by the policy; our names
        self.events: list[str] = []  # happened, not yet logged
        self._policy: LrPolicy | None = None
        self._decision: LrDecision | None = None
        self._first_step = first_step
        self._silent: set[str] = set()  # signals never logged so far

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in JSON types: transformers' protocol for callbacks with a state."""
        progress = {"policy_state": self.policy_state, "row": dict(self.row), "events": list(self.events)}
        return {"args": {"policy": self._config.model_dump(), "names": self._names}, "attributes": progress}

    def on_train_begin(self, args: object, state: TrainerState, control: object, **kwargs: Any) -> None:
        """Build the policy; in a resumed run, continue where the checkpoint stands.

        Raises:
            ValueError: the policy reads a metric that `names` does not give, or the checkpoint has another kind.
        """
        self._start(state.global_step)
        # transformers cannot save a callback without this entry, as when it joins a run that was saved without it.
        entries: Any = state.stateful_callbacks  # a dict, whatever its annotation says
        saved = entries.setdefault(type(self).__name__, self.state())
        self._policy = self._config.build(total_steps=state.max_steps)
        self._silent = set(self._policy.signals)
        if unnamed := self._silent - set(self._names.values()):
            raise ValueError(f"names: the policy reads {sorted(unnamed)}, to which none of {self._names} leads")
        if state.global_step:
            self._resume(self._policy, saved)

    def _resume(self, policy: LrPolicy, saved: Mapping[str, Any]) -> None:
        kind, saved_kind = self._config.model_dump()["kind"], saved["args"]["policy"]["kind"]
        if kind != saved_kind:
            raise ValueError(f"policy: kind is {kind!r}, but the checkpoint was written under {saved_kind!r}")
        for name, value in saved["attributes"].items():
            setattr(self, name, value)
        if self.policy_state is not None:
            policy.load_state_dict(self.policy_state)

    def on_step_begin(self, args: object, state: TrainerState, control: object, **kwargs: Any) -> None:
        """Decide the rate of the update that begins, and set it on all parameter groups."""
        if self._decision is None or self._decision.step != state.global_step:  # an epoch may stop before its update
            self._decision = self._decide(state)
        optimizer: Optimizer = kwargs["optimizer"]
        for group in optimizer.param_groups:
            group["lr"] = self._decision.lr

    def _decide(self, state: TrainerState) -> LrDecision:
        assert self._policy is not None, "on_train_begin comes first"
        self._warn_once_if_silent(state)
        decision = self._policy.observe(state.global_step, self.row)
        self.row, self.policy_state = {}, self._policy.state_dict()
        self.events.extend(decision.events)
        return decision

    def _warn_once_if_silent(self, state: TrainerState) -> None:
        self._silent -= self.row.keys()
        num_updates = state.global_step - self._first_step
        if self._silent and num_updates >= state.logging_steps:
            wanted = [theirs for theirs, ours in self._names.items() if ours in self._silent]
            warnings.warn(f"not logged in {num_updates} updates, so the lr cannot follow it: {wanted}", stacklevel=2)
            self._silent = set()

    def on_log(self, args: object, state: TrainerState, control: object, **kwargs: Any) -> None:
        """Keep what was logged for the next decision, and add the last decision to the log."""
        logs: dict[str, Any] = kwargs["logs"]
        if self._decision is None or "learning_rate" not in logs:  # evaluations and the final summary have none
            return
        found = {ours: logs[theirs] for theirs, ours in self._names.items() if theirs in logs}
        self.row.update({name: None if value is None else float(value) for name, value in found.items()})
        report = {"evenkeel/lr": self._decision.lr} | {f"evenkeel/event/{event}": 1.0 for event in self.events}
        logs.update(report)
        state.log_history[-1].update(report)
        self.events.clear()
