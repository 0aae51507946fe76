"""The TRL callback: its rates at each optimiser step, with accumulated batches, after a resume, without a length."""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, ExportableState

from actors.lr_policies import LengthTriggeredConfig, LrDecision, PolicyConfig, StepConfig

OWN_LR = 0.5  # what the trainer's own scheduler sets
NUM_UPDATES = 40
LENGTHS = [100.0 + step % 3 for step in range(8)] + [400.0] * (NUM_UPDATES - 8)
POLICY = LengthTriggeredConfig(lr=1e-3, baseline_steps=4, smoothing=0.5, ratio=1.5, patience=2)


def load_example() -> ModuleType:
    """examples/ is no package: the file is loaded by its path, once."""
    path = Path(__file__).resolve().parents[2] / "examples" / "trl_callback.py"
    spec = importlib.util.spec_from_file_location("trl_callback", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


LrPolicyCallback = load_example().LrPolicyCallback


class Recorder(TrainerCallback):
    """Stands after the callback, where a progress bar does, and keeps what it is told to log."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_log(self, args: object, state: object, control: object, **kwargs: Any) -> None:
        self.rows.append(dict(kwargs["logs"]))


class FakeTrainer:
    """Calls in the order of transformers' training loop, on a real optimiser with two parameter groups.

    `lengths[t]` is what update t logs, None for an update whose row has no length. `rates` are the rates of both groups
    at each `optimizer.step`.
    """

    def __init__(self, callback: TrainerCallback, lengths: list[float | None], **settings: Any) -> None:
        flow = {"logging_first_step": False, "logging_strategy": "steps", "eval_strategy": "no", "save_strategy": "no"}
        self.args = SimpleNamespace(**flow, eval_delay=0)
        self.lengths = lengths
        self.accumulation: int = settings.get("accumulation", 1)
        self.logging_steps: int = settings.get("logging_steps", 1)
        weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
        self.optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], lr=OWN_LR)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)
        self.rates: list[list[float]] = []
        self.optimizer.register_step_pre_hook(lambda optimizer, *_: self._note(optimizer))
        self.recorder = Recorder()
        callbacks = [DefaultFlowCallback(), callback, self.recorder]
        self.handler = CallbackHandler(callbacks, None, None, self.optimizer, self.scheduler)
        self.control = TrainerControl()
        self.state = TrainerState(stateful_callbacks=[callback])

    def _note(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def train(self, updates: int, resume_from: Path | None = None) -> None:
        callbacks = [callback for callback in self.handler.callbacks if isinstance(callback, ExportableState)]
        self.state = (
            TrainerState.load_from_json(str(resume_from)) if resume_from else TrainerState(stateful_callbacks=callbacks)
        )
        self.state.max_steps, self.state.logging_steps = NUM_UPDATES, self.logging_steps
        self.handler.on_train_begin(self.args, self.state, self.control)
        while self.state.global_step < updates:
            self._update()

    def _update(self) -> None:
        for batch in range(self.accumulation):
            if batch == 0:
                self.handler.on_step_begin(self.args, self.state, self.control)
            sum(group["params"][0] for group in self.optimizer.param_groups).sum().backward()
            if batch < self.accumulation - 1:
                self.handler.on_substep_end(self.args, self.state, self.control)
        self.handler.on_pre_optimizer_step(self.args, self.state, self.control)
        self.optimizer.step()
        self.handler.on_optimizer_step(self.args, self.state, self.control)
        learning_rate = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.state.global_step += 1
        self.handler.on_step_end(self.args, self.state, self.control)
        if self.control.should_log:
            interval = self.lengths[self.state.global_step - self.logging_steps : self.state.global_step]
            self.log({"loss": 0.0, "learning_rate": learning_rate, **mean_length(interval)})

    def log(self, logs: dict[str, Any]) -> None:
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.handler.on_log(self.args, self.state, self.control, logs)

    def save(self, path: Path) -> Path:
        for callback in self.handler.callbacks:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(path))
        return path


def mean_length(lengths: list[float | None]) -> dict[str, float]:
    """As GRPOTrainer logs it: the mean over the values since the last log; no key when there is none."""
    known = [length for length in lengths if length is not None]
    return {"completions/mean_length": sum(known) / len(known)} if known else {}


def decisions(config: PolicyConfig, lengths: list[float | None], logging_steps: int = 1) -> list[LrDecision]:
    """What the policy itself says when update t sees the row logged just before it, if one was."""
    policy = config.build(total_steps=NUM_UPDATES)
    found = []
    for step in range(len(lengths)):
        logged = mean_length(lengths[step - logging_steps : step]) if step and step % logging_steps == 0 else {}
        found.append(policy.observe(step, {"response/length_mean": logged.get("completions/mean_length")}))
    return found


def events(rows: list[dict[str, Any]]) -> dict[int, list[str]]:
    """Index of a logged row -> the events in it."""
    named = {index: [key for key in row if key.startswith("evenkeel/event/")] for index, row in enumerate(rows)}
    return {index: [key.removeprefix("evenkeel/event/") for key in keys] for index, keys in named.items() if keys}


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Rates.


def test_every_group_steps_at_the_rate_the_policy_decides_from_the_row_before() -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(NUM_UPDATES)
    expected = [decision.lr for decision in decisions(POLICY, LENGTHS)]
    assert trainer.rates == [[lr, lr] for lr in expected]
    assert len(set(expected)) == 3, "no decay on this trace: it would prove nothing"


def test_the_trainers_own_scheduler_does_not_get_its_way() -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(NUM_UPDATES)
    assert trainer.optimizer.param_groups[0]["lr"] == OWN_LR, "the scheduler wrote its rate after the last step"
    assert all(rate < OWN_LR for rates in trainer.rates for rate in rates)


@pytest.mark.parametrize("accumulation", [2, 5])
def test_accumulated_batches_make_one_decision_per_update(accumulation: int) -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS, accumulation=accumulation)
    trainer.train(NUM_UPDATES)
    assert trainer.rates == [[decision.lr] * 2 for decision in decisions(POLICY, LENGTHS)]


def test_a_row_is_seen_once_when_not_every_update_is_logged() -> None:
    eager = POLICY.model_copy(update={"baseline_steps": 1})
    trainer = FakeTrainer(LrPolicyCallback(eager), LENGTHS, logging_steps=4)
    trainer.train(NUM_UPDATES)
    expected = decisions(eager, LENGTHS, logging_steps=4)
    assert trainer.rates == [[decision.lr] * 2 for decision in expected]
    (surge,) = [decision.step for decision in expected if "surge" in decision.events]
    assert surge == 16, "the rows logged after updates 12 and 16 are two values above the level"


def test_updates_that_reuse_completions_are_no_values_and_no_reason_to_warn() -> None:
    lengths = [length if step % 2 == 0 else None for step, length in enumerate(LENGTHS)]
    trainer = FakeTrainer(LrPolicyCallback(POLICY), lengths)
    trainer.train(NUM_UPDATES)
    assert trainer.rates == [[decision.lr] * 2 for decision in decisions(POLICY, lengths)]


def test_a_schedule_without_total_steps_takes_the_trainers() -> None:
    trainer = FakeTrainer(LrPolicyCallback({"kind": "linear", "lr": 1.0}), LENGTHS)
    trainer.train(NUM_UPDATES)
    assert [rates[0] for rates in trainer.rates] == [1 - step / NUM_UPDATES for step in range(NUM_UPDATES)]


def test_an_epoch_that_stops_before_its_update_decides_once_only() -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(3)
    trainer.handler.on_step_begin(trainer.args, trainer.state, trainer.control)
    trainer._update()
    assert len(trainer.rates) == 4


def test_a_second_training_starts_anew() -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(NUM_UPDATES)
    trainer.train(NUM_UPDATES)
    assert trainer.rates[NUM_UPDATES:] == trainer.rates[:NUM_UPDATES]


# Checkpoints.


@pytest.mark.parametrize("stop", [3, 9, 10, 11, 20])
def test_a_resumed_run_decides_as_if_it_had_not_stopped(stop: int, tmp_path: Path) -> None:
    first, second = (FakeTrainer(LrPolicyCallback(POLICY), LENGTHS) for _ in range(2))
    first.train(stop)
    second.train(NUM_UPDATES, resume_from=first.save(tmp_path / "trainer_state.json"))
    assert first.rates + second.rates == [[decision.lr] * 2 for decision in decisions(POLICY, LENGTHS)]


def test_an_event_that_was_not_logged_before_the_checkpoint_is_logged_after_it(tmp_path: Path) -> None:
    config = LengthTriggeredConfig(decay_period=5)
    first, second = (FakeTrainer(LrPolicyCallback(config), LENGTHS, logging_steps=4) for _ in range(2))
    first.train(6)  # decays at update 5, logs after updates 4 and 8
    second.train(8, resume_from=first.save(tmp_path / "trainer_state.json"))
    assert (events(first.recorder.rows), events(second.recorder.rows)) == ({}, {0: ["decay"]})


def test_transformers_can_rebuild_the_callback_from_its_state() -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(12)
    callback = trainer.handler.callbacks[1]
    assert LrPolicyCallback.from_state(callback.state()).state() == callback.state()


def test_it_may_join_a_run_that_was_saved_without_it(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    TrainerState(global_step=7).save_to_json(str(path))
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(9, resume_from=path)
    assert trainer.rates == [[POLICY.lr] * 2] * 2
    assert "LrPolicyCallback" in trainer.state.stateful_callbacks


def test_a_checkpoint_of_another_kind_of_policy_is_refused(tmp_path: Path) -> None:
    first = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    first.train(3)
    second = FakeTrainer(LrPolicyCallback(StepConfig(period=5)), LENGTHS)
    with pytest.raises(ValueError, match="kind is 'step', but the checkpoint was written under 'length_triggered'"):
        second.train(5, resume_from=first.save(tmp_path / "trainer_state.json"))


# Logs.


def test_rate_and_events_are_logged_once_each() -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(NUM_UPDATES)
    expected = decisions(POLICY, LENGTHS)
    for rows in (trainer.recorder.rows, trainer.state.log_history):
        assert [row["evenkeel/lr"] for row in rows] == [decision.lr for decision in expected]
        assert events(rows) == {decision.step: list(decision.events) for decision in expected if decision.events}
    assert [event for decision in expected for event in decision.events].count("surge") == 1


def test_a_replay_of_the_trainers_own_log_decides_the_same() -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), LENGTHS)
    trainer.train(NUM_UPDATES)
    policy = POLICY.build(total_steps=None)
    for row in trainer.state.log_history[:-1]:
        replayed = policy.observe(row["step"], {"response/length_mean": row["completions/mean_length"]})
        assert replayed.lr == trainer.rates[row["step"]][0]


def test_evaluations_are_neither_read_nor_written_to() -> None:
    callback = LrPolicyCallback(POLICY, names={"eval_completions/mean_length": "response/length_mean"})
    trainer = FakeTrainer(callback, LENGTHS)
    trainer.train(1)
    trainer.log({"eval_loss": 0.0, "eval_completions/mean_length": 9.0})
    assert callback.row == {}
    assert trainer.recorder.rows[-1] == {"eval_loss": 0.0, "eval_completions/mean_length": 9.0}


def test_a_value_that_trl_could_not_compute_is_no_value() -> None:
    callback = LrPolicyCallback(POLICY)
    trainer = FakeTrainer(callback, LENGTHS)
    trainer.train(1)
    trainer.log({"learning_rate": 0.0, "completions/mean_length": None})
    assert callback.row == {"response/length_mean": None}


@pytest.mark.parametrize("logging_steps", [1, 10])
def test_a_length_that_is_never_logged_means_no_decay_and_one_warning(logging_steps: int) -> None:
    trainer = FakeTrainer(LrPolicyCallback(POLICY), [None] * NUM_UPDATES, logging_steps=logging_steps)
    message = rf"not logged in {logging_steps} updates.*completions/mean_length"
    with pytest.warns(UserWarning, match=message) as warned:
        trainer.train(NUM_UPDATES)
    assert len(warned) == 1
    assert trainer.rates == [[POLICY.lr] * 2] * NUM_UPDATES


# What the user wrote.


def test_a_policy_that_reads_what_no_name_leads_to_is_refused_before_the_first_step() -> None:
    signal = {"kind": "signal_triggered", "signal": "gradient/noise_scale"}
    trainer = FakeTrainer(LrPolicyCallback(signal), LENGTHS)
    with pytest.raises(ValueError, match=r"names: the policy reads \['gradient/noise_scale'\]"):
        trainer.train(1)
    assert trainer.rates == []


def test_a_wrong_policy_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="factor"):
        LrPolicyCallback({"kind": "length_triggered", "factor": 2.0})


# The real trainer.


class RateRecorder(TrainerCallback):
    """The rate of the first parameter group right after each real `optimizer.step`."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_optimizer_step(self, args: object, state: object, control: object, **kwargs: Any) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])


def train_for_real(callback: TrainerCallback, folder: Path, resume_from: Path | None = None) -> tuple[list[float], Any]:
    """Six updates of transformers' Trainer, saved after the third: the rates and the trainer's last state.

    The model has one layer and random weights; as GRPOTrainer does, the trainer adds the length to what it logs.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    class LengthTrainer(Trainer):
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(
                {**logs, "completions/mean_length": 100.0 if self.state.global_step == 1 else 400.0}, start_time
            )

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=11, num_hidden_layers=1, **shape))
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False}
    often = {"logging_steps": 1, "save_steps": 3, "max_steps": 6}
    batches = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "lr_scheduler_type": "constant"}
    arguments = TrainingArguments(output_dir=str(folder), learning_rate=OWN_LR, **quiet, **often, **batches)
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 16
    recorder = RateRecorder()
    trainer = LengthTrainer(model=model, args=arguments, train_dataset=rows, callbacks=[callback, recorder])
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return recorder.rates, trainer.state


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_real_trainer_steps_logs_and_resumes_at_the_policys_rates(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
    settings = {"baseline_steps": 1, "smoothing": 1.0, "ratio": 1.5, "patience": 1, "period_multiplier": 1.0}
    config = LengthTriggeredConfig(lr=1e-3, **settings)
    rates, state = train_for_real(LrPolicyCallback(config), tmp_path / "whole")
    assert rates == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4]
    rows = [row for row in state.log_history if "evenkeel/lr" in row]
    assert [row["evenkeel/lr"] for row in rows] == rates
    assert events(rows) == {2: ["surge", "decay"], 4: ["decay"]}
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    rest, _ = train_for_real(LrPolicyCallback(config), tmp_path / "rest", resume_from=checkpoint)
    assert rest == rates[3:]
