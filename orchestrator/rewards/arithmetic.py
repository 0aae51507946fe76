"""The arithmetic reward: the text after the last mark, character for character."""

from orchestrator.rewards.scores import RewardItem, Score

ANSWER_MARK = "#"


def arithmetic_reward(response: str, answer: str) -> float:
    """Score a response by its final answer: the text after the last `ANSWER_MARK`.

    Only an exact match counts, so padding, repeated signs or trailing chatter earn nothing and cannot be exploited.
    Linear in the length of the response; never raises.

    Args:
        response: Decoded response without special tokens, e.g. `"5+7+0=12;8+4+1=13;#132"`.
        answer: Expected answer, e.g. `"132"`.

    Returns:
        1.0 when the final answer equals `answer`, otherwise 0.0 (also when no answer is marked).
    """
    _, mark, final = response.rpartition(ANSWER_MARK)
    return 1.0 if mark and final == answer else 0.0


def score_arithmetic(item: RewardItem) -> Score:
    """`arithmetic_reward` with the answer it looked at."""
    _, _, final = item.response.rpartition(ANSWER_MARK) if ANSWER_MARK in item.response else ("", "", "")
    return Score.of(arithmetic_reward(item.response, item.answer) == 1.0, final)
