"""Optuna's samplers and pruners, as a sweep file names them."""

import numpy as np
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from sweeps.sweep_config import MedianPrunerConfig, PercentilePrunerConfig, PrunerConfig, SamplerConfig, TpeConfig


def sampler_of(config: SamplerConfig, number: int) -> BaseSampler:
    """A fresh sampler for one trial: what it suggests depends on the seed, the trial's number and the trials so far,
    whichever driver asks, and however often the study was interrupted.
    """
    # Not their sum: a study with the next seed would be this one, but for its first trial.
    seed = int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])
    if isinstance(config, TpeConfig):
        return TPESampler(seed=seed, n_startup_trials=config.startup_trials)
    return RandomSampler(seed=seed)


def pruner_of(config: PrunerConfig) -> BasePruner:
    """The pruner of all trials."""
    if isinstance(config, MedianPrunerConfig):
        return MedianPruner(n_startup_trials=config.startup_trials, n_warmup_steps=config.warmup_steps)
    if isinstance(config, PercentilePrunerConfig):
        return PercentilePruner(
            config.percentile, n_startup_trials=config.startup_trials, n_warmup_steps=config.warmup_steps
        )
    return NopPruner()
