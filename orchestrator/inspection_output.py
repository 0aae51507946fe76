"""How an inspection of recorded rollouts looks: tables and coloured responses on a terminal, or one JSON object."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.inspection import BinSums, Inspection, SequenceMismatch, TokenMismatch

WINDOW = 160  # tokens of a response that are shown, around the worst one
PROMPT_CHARACTERS = 160  # of a prompt's end
FACT_CHARACTERS = 40
BRACKETED = 5  # tokens of a response that stand in brackets where there are no colours
BAR = 8  # characters of the longest bar
LIKELIER = ("black on #d6e4ff", "black on #8fb4ff", "white on #1c4fd0")  # under the learner: blue, by |d|
UNLIKELIER = ("black on #ffdcd6", "black on #ff9a8a", "white on #c81e1e")  # red


def show(inspection: Inspection, console: Console, top: int = 10) -> None:
    """Print it: the mismatch by position and by probability, the worst sequences token by token, the worst tokens.

    Args:
        inspection: of a file.
        console: where to. Without colours (a pipe, NO_COLOR) the worst tokens stand in brackets instead.
        top: how many sequences and tokens, at most as many as the inspection has kept.
    """
    page = _Page(console, inspection)
    page.heading()
    page.bins("position in the response", "position", inspection.by_position)
    page.bins("probability under the sampler", "p sampler", inspection.by_probability)
    page.legend()
    page.sequences("mean", inspection.worst_by_mean[:top])
    page.sequences("sum", inspection.worst_by_sum[:top])
    page.tokens(inspection.worst_tokens[:top])


def as_json(inspection: Inspection) -> dict[str, Any]:
    """The same as what `json.dumps` takes, all that was kept; numbers that are not finite are None."""
    return {
        "source": inspection.source,
        "steps": list(inspection.steps) if inspection.steps else None,
        "metrics": _finite(inspection.totals.metrics()),
        "by_position": {label: _bin(sums) for label, sums in inspection.by_position.items()},
        "by_probability": {label: _bin(sums) for label, sums in inspection.by_probability.items()},
        "worst_by_mean": [_sequence(sequence) for sequence in inspection.worst_by_mean],
        "worst_by_sum": [_sequence(sequence) for sequence in inspection.worst_by_sum],
        "worst_tokens": [_token(token) for token in inspection.worst_tokens],
    }


def visible(text: str, encoding: str = "utf-8") -> str:
    """Text that cannot act on a terminal: newlines as ↵, other control and invisible characters escaped.

    >>> visible("a\\nb\\x1b[2J")
    'a↵b\\\\x1b[2J'
    """
    shown = "".join(
        "↵" if char == "\n" else char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


class _Page:
    """What one call prints, piece by piece."""

    def __init__(self, console: Console, inspection: Inspection) -> None:
        self._console = console
        self._inspection = inspection
        self._coloured = console.color_system is not None and not console.no_color
        largest = max((abs(token.diff) for token in inspection.worst_tokens), default=1.0)
        strong = 10.0 ** math.floor(math.log10(min(largest, 1.0)))
        self._levels = np.array([strong / 100, strong / 10, strong])  # of |d|, from which each intensity begins
        self._shown: set[str] = set()  # places of sequences

    def heading(self) -> None:
        totals, steps = self._inspection.totals, self._inspection.steps
        parts = [self._inspection.source, f"{totals.sequences} sequences", f"{totals.tokens} tokens"]
        if steps:
            parts.append(f"step {steps[0]}" if steps[0] == steps[1] else f"steps {steps[0]} to {steps[1]}")
        self._line(self._text(", ".join(parts), "bold"))
        self._line(self._text("d = log-prob of a token under the learner - under the sampler", "dim"))

    def bins(self, what: str, heading: str, bins: Mapping[str, BinSums]) -> None:
        table = Table(title=f"by {what}", title_justify="left")
        table.add_column(heading, overflow="fold")
        for name in ("tokens", "mean |d|", "mean d", "max |d|", "mean |Δp|"):
            table.add_column(self._visible(name), justify="right", overflow="fold")
        table.add_column("", overflow="fold")  # a bar of the mean of |d|
        means = {label: sums.abs_diff / sums.tokens for label, sums in bins.items() if sums.tokens}
        block = "█" if self._visible("█") == "█" else "#"
        largest = max(means.values())
        for label, sums in bins.items():
            mean = means.get(label)
            table.add_row(label, *_cells(sums), block * math.ceil(mean / largest * BAR) if mean else "")
        self._console.print(table)

    def legend(self) -> None:
        if not self._inspection.worst_tokens:
            self._line(Text("no token has different log-probs"))
        elif self._coloured:
            text = Text("|d| from ")
            for name, styles in (("likelier", LIKELIER), ("less likely", UNLIKELIER)):
                for level, style in zip(self._levels, styles, strict=True):
                    text.append(f" {level:g} ", style)
                text.append(f" {name} under the learner   ")
            self._line(text)
        else:
            self._line(Text(f"in brackets: up to {BRACKETED} tokens of a response with the largest |d|, and their d"))

    def sequences(self, ranking: str, sequences: Sequence[SequenceMismatch]) -> None:
        if sequences:
            self._line(Text(f"\nsequences with the largest |{ranking} d|", "bold"))
        for sequence in sequences:
            self._line(self._text(_description(sequence), "bold" if self._coloured else ""))
            if sequence.place in self._shown:
                self._line(Text("  (see above)", "dim"))
                continue
            self._shown.add(sequence.place)
            self._line(self._sequence(sequence))

    def tokens(self, tokens: Sequence[TokenMismatch]) -> None:
        if not tokens:
            return
        self._console.print()
        table = Table(title="tokens with the largest |d|", title_justify="left")
        for name in ("where", "position", "d", "p learner", "p sampler"):
            table.add_column(name, justify="left" if name == "where" else "right", overflow="fold")
        table.add_column("token", overflow="fold")
        for token in tokens:
            before, after = (self._text(context, "dim") for context in (token.before, token.after))
            text = Text.assemble(before, self._marked(token.token, token.diff, bracketed=True, value=False), after)
            numbers = [
                f"{token.diff:+.3g}",
                *(f"{np.exp(p):.3g}" for p in (token.train_logprob, token.rollout_logprob)),
            ]
            table.add_row(token.place, str(token.position), *numbers, text)
        self._console.print(table)

    def _sequence(self, sequence: SequenceMismatch) -> Text:
        sizes = np.abs(sequence.diffs)
        worst = int(sizes.argmax())
        first = max(0, min(worst - WINDOW // 2, sizes.size - WINDOW))
        last = min(sizes.size, first + WINDOW)
        order = first + np.argsort(-sizes[first:last], kind="stable")[:BRACKETED]
        bracketed = set(order[sizes[order] > 0].tolist())
        text = Text.assemble(self._text(_end(sequence.prompt or "", PROMPT_CHARACTERS), "dim"))
        text.append(self._visible(" … " if first else " "))
        for i in range(first, last):
            text.append_text(self._marked(sequence.tokens[i], float(sequence.diffs[i]), bracketed=i in bracketed))
        text.append(self._visible(" …") if last < sizes.size else "")
        return text

    def _marked(self, token: str, diff: float, *, bracketed: bool, value: bool = True) -> Text:
        """A token in its colour; without colours in brackets, where it is to have them, with its d or without."""
        level = int(np.searchsorted(self._levels, abs(diff), side="right"))
        if not self._coloured:
            shown = self._visible(token)
            return Text(f"[{shown} {diff:+.2g}]" if value else f"[{shown}]") if bracketed else Text(shown)
        return self._text(token, (LIKELIER if diff > 0 else UNLIKELIER)[level - 1] if level else "")

    def _text(self, text: str, style: str) -> Text:
        return Text(self._visible(text), style)

    def _visible(self, text: str) -> str:
        return visible(text, self._console.encoding)

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=not self._console.is_terminal)


def _description(sequence: SequenceMismatch) -> str:
    facts = [f"{name} {_end(_number(value), FACT_CHARACTERS)}" for name, value in sequence.facts.items()]
    diffs = [f"mean d {sequence.mean_diff:+.3g}", f"sum d {sequence.sum_diff:+.3g}"]
    return ", ".join([sequence.place, f"{len(sequence.tokens)} tokens", *diffs, *facts])


def _number(value: str | int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _end(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"…{text[1 - characters :]}"


def _means(sums: BinSums) -> tuple[float, float, float, float]:
    return (
        sums.abs_diff / sums.tokens,
        sums.diff / sums.tokens,
        sums.abs_diff_max,
        sums.prob_abs_diff / sums.tokens,
    )


def _cells(sums: BinSums) -> list[str]:
    if not sums.tokens:
        return ["0", "-", "-", "-", "-"]
    mean, signed, largest, gap = _means(sums)
    return [str(sums.tokens), f"{mean:.2g}", f"{signed:+.2g}", f"{largest:.2g}", f"{gap:.2g}"]


def _bin(sums: BinSums) -> dict[str, Any]:
    names = ("mean_abs_diff", "mean_diff", "max_abs_diff", "mean_prob_abs_diff")
    means = _finite(dict(zip(names, _means(sums), strict=True))) if sums.tokens else dict.fromkeys(names)
    return {"tokens": sums.tokens, **means}


def _sequence(sequence: SequenceMismatch) -> dict[str, Any]:
    return {
        "place": sequence.place,
        **_finite({"mean_diff": sequence.mean_diff, "sum_diff": sequence.sum_diff}),
        "facts": _finite(sequence.facts),
        "prompt": sequence.prompt,
        "tokens": list(sequence.tokens),
        "diffs": sequence.diffs.tolist(),
    }


def _token(token: TokenMismatch) -> dict[str, Any]:
    numbers = {"diff": token.diff, "train_logprob": token.train_logprob, "rollout_logprob": token.rollout_logprob}
    texts = {"before": token.before, "token": token.token, "after": token.after}
    return {"place": token.place, "position": token.position, **_finite(numbers), **texts}


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    lost = {name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
    return {name: None if name in lost else value for name, value in values.items()}
