"""Right answers to prompts like `47+85=`, for a stand-in that shall be right now and then."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

ANSWER_MARK = "#"
SUM = re.compile(r"(\d+)\+(\d+)=")


class Sums:
    """Reads and writes with a tokenizer that has a token for each character.

    sums = Sums.of("/models/tiny")
    sums.answer([7, 10, 13, 11, 8, 14])     # the tokens of "#132", after those of "47+85="
    """

    def __init__(self, vocabulary: dict[str, int], end: int | None) -> None:
        self._ids = {text: number for text, number in vocabulary.items() if len(text) == 1}
        self._characters = {number: text for text, number in self._ids.items()}
        self.end = end  # the token that ends a response, if the tokenizer has one that is known here

    @classmethod
    def of(cls, model: str) -> "Sums":
        """With the tokenizer in a model's folder; where there is none, no prompt is a sum."""
        file = Path(model) / "tokenizer.json"
        vocabulary: dict[str, int] = {}
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))["model"].get("vocab", {})
            vocabulary = found if isinstance(found, dict) else {}
        return cls(vocabulary, vocabulary.get("<eos>"))

    def answer(self, prompt_ids: Sequence[int]) -> list[int] | None:
        """The tokens of the marked sum; None when the prompt is no sum, or its tokenizer lacks a character."""
        match = SUM.fullmatch("".join(self._characters.get(number, " ") for number in prompt_ids))
        if match is None:
            return None
        text = ANSWER_MARK + str(int(match[1]) + int(match[2]))
        return [self._ids[character] for character in text] if all(one in self._ids for one in text) else None
