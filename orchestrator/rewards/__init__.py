"""Rewards: what a response to a problem is worth, and the processes that work it out."""

from orchestrator.rewards.arithmetic import ANSWER_MARK, arithmetic_reward

__all__ = ["ANSWER_MARK", "arithmetic_reward"]
