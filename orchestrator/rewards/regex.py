"""The regex reward: the last match of a pattern is the answer."""

import re

from orchestrator.rewards.config import RegexReward
from orchestrator.rewards.scores import RewardItem, Score, Scorer


def regex_scorer(config: RegexReward) -> Scorer:
    """1 when group 1 of the last match, or all of it where there is no group, is the answer after stripping both.

    Takes as long as the pattern takes on that text; the time limit of the pool ends a pattern that backtracks forever.
    """
    pattern = re.compile(config.pattern)
    group = 1 if pattern.groups else 0

    def score(item: RewardItem) -> Score:
        last = None
        for match in pattern.finditer(item.response):
            last = match
        given = ((last.group(group) if last else None) or "").strip()
        return Score.of(given != "" and given == item.answer.strip(), given)

    return score
