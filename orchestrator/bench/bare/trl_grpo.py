"""Steps of TRL's GRPOTrainer with transformers' generation; runs in an environment of its own that has TRL."""

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}

import torch
from datasets import Dataset
from datasets.utils import disable_progress_bars
from transformers import TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer


class Turns(TrainerCallback):
    """Has the trainer do so many steps per line of standard input; answers with their seconds and tokens."""

    def __init__(self, steps_per_turn: int) -> None:
        self._steps_per_turn = steps_per_turn
        self._tokens = 0
        self._sampling_s = 0.0
        self._started = 0.0
        self._step_started = 0.0

    def sampled(self, num_tokens: int) -> None:
        """A step's responses are there; the tokens that end them are counted."""
        self._tokens += num_tokens
        self._sampling_s += time.perf_counter() - self._step_started

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """It is up."""
        print("{}", flush=True)
        self._wait(control)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sampling comes first."""
        self._step_started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step more of the turn is done."""
        if state.global_step % self._steps_per_turn == 0:
            took = time.perf_counter() - self._started
            told = {"seconds": took, "tokens": self._tokens, "sampling_s": self._sampling_s}
            print(json.dumps(told), flush=True)
            self._wait(control)

    def _wait(self, control: Any) -> None:
        control.should_training_stop = not sys.stdin.readline()
        self._tokens = 0
        self._sampling_s = 0.0
        self._started = time.perf_counter()


def arithmetic(completion: str, answer: str) -> float:
    """1 when the text after the last # is the answer."""
    _, mark, final = completion.rpartition("#")
    return float(bool(mark) and final == answer)


def main() -> None:
    """Steps per line of standard input."""
    settings = json.loads(sys.argv[1])
    os.nice(settings["niceness"])
    torch.set_num_threads(settings["threads"])
    logging.set_verbosity_error()
    disable_progress_bars()
    turns = Turns(settings["steps_per_turn"])

    def reward(
        completions: list[str], answer: list[str], completion_ids: list[list[int]], **kwargs: Any
    ) -> list[float]:
        turns.sampled(sum(map(len, completion_ids)))
        return [arithmetic(*pair) for pair in zip(completions, answer, strict=True)]

    responses = settings["prompts_per_step"] * settings["group_size"]
    with TemporaryDirectory() as folder, Path(settings["problems"]).open() as problems:
        trainer = GRPOTrainer(
            model=settings["model"],
            reward_funcs=reward,
            train_dataset=Dataset.from_list([json.loads(line) for line in problems]),
            callbacks=[turns],
            args=GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                model_init_kwargs={"dtype": "float32", "attn_implementation": settings["attention"]},
                torch_compile=settings["compile"],
                bf16=settings["bf16"],
                gradient_checkpointing=False,
                per_device_train_batch_size=settings["responses_per_microbatch"],
                gradient_accumulation_steps=responses // settings["responses_per_microbatch"],
                num_generations=settings["group_size"],
                max_completion_length=settings["max_response_tokens"],
                use_transformers_continuous_batching=settings["continuous_batching"],
                shuffle_dataset=False,
                disable_dropout=True,
                temperature=1.0,
                beta=0.0,
                epsilon_high=0.28,
                learning_rate=settings["lr"],
                lr_scheduler_type="constant",
                adam_beta2=0.95,
                max_steps=1_000_000,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
        )
        trainer.train()


if __name__ == "__main__":
    main()
