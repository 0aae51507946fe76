"""A study: Optuna's trials, each run as forks of what was run before, by one driver or several."""
