"""The exact reward: the response is the answer."""

from orchestrator.rewards.config import ExactReward
from orchestrator.rewards.scores import RewardItem, Score, Scorer


def exact_scorer(config: ExactReward) -> Scorer:
    """1 when response and answer agree after stripping white space; an empty response earns nothing."""

    def plain(text: str) -> str:
        return text.strip().casefold() if config.ignore_case else text.strip()

    def score(item: RewardItem) -> Score:
        given = plain(item.response)
        return Score.of(given != "" and given == plain(item.answer), given)

    return score
