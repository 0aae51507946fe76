"""The math reward: every problem of the GSM8K test set, and what a model may write to earn what it should not."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rewards.config import LimitsConfig, MathReward
from orchestrator.rewards.mathematics import score_mathematics
from orchestrator.rewards.pool import RewardPool
from orchestrator.rewards.scores import RewardItem

PROBLEMS = [
    json.loads(line) for line in (Path(__file__).parents[2] / "data" / "gsm8k" / "test.jsonl").read_text().splitlines()
]
GOLD = [problem["answer"].rpartition("#### ")[2] for problem in PROBLEMS]
BRACES, TOWER = "{" * 200 + "5" + "}" * 200, r"10^{10^{10}}"

# Answer as it stands in the box, gold answer, expected score, why.
ADVERSARIAL: list[tuple[str, str, float, str]] = [
    # nothing, or nothing that can be read
    ("", "5", 0, "an empty box"),
    ("   ", "5", 0, "white space"),
    ("", "", 0, "nothing is not the right answer, whatever the file says"),
    ("{}", "5", 0, "empty braces"),
    (r"\text{}", "5", 0, "empty text"),
    ("?", "5", 0, "a question mark"),
    (r"\frac{1}{", r"\frac12", 0, "LaTeX that is not balanced"),
    (r"\frac{1", "1", 0, "a fraction cut short"),
    ("5)", "5", 0, "a bracket too many"),
    ("(5", "5", 0, "a bracket too few"),
    ("[(5])", "5", 0, "brackets crossed"),
    (r"\sqrt", "0", 0, "a command without its argument"),
    (r"\undefined{5}", "5", 0, "an unknown command"),
    ("5 @ 6", "5", 0, "a stray sign"),
    # too much to work out
    ("(" * 200 + "5" + ")" * 200, "5", 0, "deep nesting"),
    (BRACES, "5", 0, "deep nesting of braces"),
    (r"\frac{1}{1+" * 60 + "1" + "}" * 60, "1", 0, "a deep continued fraction"),
    (r"\sqrt{" * 50 + "1" + "}" * 50, "1", 0, "deep roots"),
    ("10^10^10", "10", 0, "a tower without braces"),
    (TOWER, "10", 0, "a tower"),
    (f"{TOWER}-{TOWER}", "0", 0, "a difference of towers"),
    (f"0 \\cdot {TOWER}", "0", 0, "a tower times nothing"),
    ("9^{9^{9^{9^{9}}}}", "9", 0, "a higher tower"),
    ("2^{-10^{10^{10}}}", "0", 0, "a tower below"),
    (r"\left(10^{100}\right)^{100^{100}}", "10", 0, "powers of powers"),
    ("(x+1)^{1000000}", "x", 0, "a power of a sum"),
    ("((9!)!)!", "9", 0, "a tower of factorials"),
    ("9!!!", "9", 0, "factorials without brackets"),
    ("1000000!", "1", 0, "a large factorial"),
    ("3!", "6", 1, "a small factorial"),
    (r"\binom{10000000}{5000000}", "1", 0, "a large binomial"),
    (r"\binom{5}{2}", "10", 1, "a small binomial"),
    (r"\sum_{i=1}^{10^{9}} i", "1", 0, "a long sum"),
    (r"\int_0^{10^9} e^{x^2} dx", "1", 0, "an integral"),
    (r"e^{e^{e^{e^{79}}}}", "1", 0, "a tower of exponentials"),
    ("9" * 10_000, "9", 0, "a very long number"),
    ("9" * 10_000, "9" * 10_000, 1, "a very long number that is right"),
    ("9" * 3_000, "9" * 2_999 + "8", 0, "a long number with a wrong last digit"),
    ("1+" * 3_000 + "1", "3001", 0, "a very long sum"),
    # other scripts
    ("١٨", "18", 0, "Arabic-Indic digits"),
    ("१८", "18", 0, "Devanagari digits"),
    ("\uff11\uff18", "18", 0, "full-width digits"),
    ("十八", "18", 0, "Chinese numerals"),
    ("十八", "十八", 1, "text in any script is compared as text"),
    ("\uff11\uff18", "19", 0, "full-width digits, wrong"),
    ("\u22125", "-5", 1, "the typographic minus"),
    ("\u22125", "5", 0, "the typographic minus is a minus"),
    ("5\u200b", "6", 0, "a space without width"),
    ("2π", r"2\pi", 1, "a Greek letter"),
    ("½", "2", 0, "a fraction in one character"),
    ("5²", "52", 0, "a superscript in one character"),
    # words
    ("eighteen", "18", 0, "a number in words"),
    (r"\text{eighteen}", "18", 0, "a number in words, as text"),
    (r"\text{18}", "18", 1, "a number as text"),
    ("five or 5", "5", 0, "words and a number"),
    ("not 5", "5", 0, "a denial"),
    (r"5 \text{ is wrong}", "5", 0, "a denial after it"),
    (r"5 \text{ million}", "5", 0, "a magnitude is no unit"),
    ("5 dozen", "5", 0, "nor is a dozen"),
    (r"\text{Yes}", "yes", 1, "words in any case"),
    (r"\text{cat}", "act", 0, "letters of a word are no factors"),
    ("cat", r"\text{act}", 0, "nor the other way round"),
    ("A", "B", 0, "another choice"),
    (r"\textbf{(A)}", r"\text{(A)}", 1, "a choice in bold"),
    ("X", "x", 0, "another variable"),
    # several answers
    ("5 or 6", "5", 0, "a hedge"),
    ("5, 6", "5", 0, "a list for one number"),
    ("5, 6", "6", 0, "a list for its last number"),
    ("5 6", "11", 0, "two numbers are not their sum"),
    ("5 6", "56", 0, "nor one number"),
    ("5 6", "30", 0, "nor their product"),
    (r"\{1,2,3,4,5,6,7,8,9\}", "5", 0, "all digits"),
    (r"\pm 5", "5", 0, "both signs"),
    (r"\pm 5", "-5, 5", 1, "both signs where both are right"),
    ("x=5=6", "6", 0, "an equation that is wrong"),
    ("x=5=6", "5", 0, "whichever side"),
    ("x=5, x=6", "5", 0, "two solutions for one"),
    ("5;6", "5", 0, "a list with a semicolon"),
    # sets, tuples, intervals
    (r"\{2,1\}", r"\{1,2\}", 1, "a set in another order"),
    ("3, 1, 2", "1,2,3", 1, "a list in another order"),
    ("(2,1)", "(1,2)", 0, "a tuple in another order"),
    ("(1,2,3)", "(1,3,2)", 0, "a triple in another order"),
    ("(3,1)", "(2,1)", 0, "intervals that would both be empty"),
    ("[1,2]", "(1,2)", 0, "a closed interval for an open one"),
    ("[1,2)", "(1,2]", 0, "the other end open"),
    (r"\{1,2\}", "(1,2)", 0, "a set for an interval"),
    ("1,2", "(1,2)", 0, "a list for a point"),
    (r"(-\infty, 3)", r"(-\infty,3)", 1, "an interval to infinity"),
    (r"(3,4)\cup(1,2)", r"(1,2)\cup(3,4)", 1, "a union in another order"),
    ("(1,4)", r"(1,2)\cup(2,4)", 0, "an interval without its hole"),
    (r"\{5\}", "5", 0, "a set of one is not its element"),
    (r"\{\frac12, 2\}", r"\{2, 0.5\}", 1, "elements of equal value"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}", 0, "another vector"),
    (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}", 1, "brackets of another shape"),
    # numbers
    (r"\frac{2}{4}", r"\frac12", 1, "a fraction not reduced"),
    ("1/2", "0.5", 1, "a fraction for a decimal"),
    (r"\dfrac 12", r"\frac{1}{2}", 1, "a fraction without braces"),
    (r"\frac123", r"\frac{1}{23}", 0, "which digits are which?"),
    (r"\frac{1}{0}", "0", 0, "a division by nothing"),
    (r"\frac{0}{0}", "0", 0, "nothing by nothing"),
    ("0.333333", r"\frac13", 0, "near is not equal"),
    ("0.3333333333333333", r"\frac13", 0, "nor nearer"),
    ("3.14159265358979", r"\pi", 0, "nor to pi"),
    ("1.41421356237", r"\sqrt2", 0, "nor to a root"),
    (r"\frac{22}{7}", r"\pi", 0, "nor as a fraction"),
    ("0.0000001", "0", 0, "small is not nothing"),
    (r"\sqrt{2} \cdot 10^{-20}", r"\sqrt{3} \cdot 10^{-20}", 0, "small ones differ too"),
    ("17.9999999999", "18", 0, "near and below"),
    ("18.000000000000000000001", "18", 0, "near and above"),
    ("0.999...", "1", 0, "dots are not read"),
    ("0.999...", "0.999", 0, "in neither way"),
    (r"0.\overline{9}", "1", 0, "nor a bar"),
    ("18.0", "18", 1, "a decimal that is whole"),
    ("018", "18", 1, "a leading zero"),
    ("+18", "18", 1, "a plus sign"),
    ("-18", "18", 0, "the wrong sign"),
    ("--18", "18", 0, "two signs"),
    (r"3\frac{1}{2}", "3.5", 1, "a mixed number"),
    ("3 1/2", r"\frac{7}{2}", 1, "a mixed number in plain text"),
    ("-3 1/2", "-2.5", 0, "the sign of a mixed number is that of all of it"),
    ("3 1/2", "2", 0, "and not 3 of 1/2, nor 31 halves"),
    ("1,234", "1234", 1, "thousands by comma"),
    ("1{,}234", "1,234", 1, "thousands by a comma in braces"),
    (r"1\,234", "1234", 1, "thousands by a thin space"),
    ("1.234", "1234", 0, "thousands by a full stop"),
    ("12,34", "1234", 0, "a comma in the wrong place"),
    ("1, 234", "1234", 0, "a comma and a space"),
    ("1_000", "1000", 0, "thousands as in Python"),
    ("1e3", "1000", 0, "an exponent as in Python"),
    ("0x12", "18", 0, "hexadecimal"),
    ("0x12", "0", 0, "nor nothing times x times 12"),
    ("12_3", "12", 0, "a number to another base"),
    (r"5 \times 10^{3}", "5000", 1, "scientific notation"),
    ("NaN", "18", 0, "no number"),
    (r"\infty", "18", 0, "infinity"),
    ("inf", "18", 0, "infinity in letters"),
    (r"-\infty", r"\infty", 0, "the other infinity"),
    (r"\infty - \infty", "0", 0, "infinity less itself"),
    # percentages, units, punctuation
    (r"50\%", "50", 1, "a percentage for its number"),
    (r"50\%", r"\frac12", 1, "a percentage for its value"),
    (r"0.5\%", "0.5", 1, "a percentage for its number, below one"),
    (r"0.5\%", "50", 0, "a percentage is not a hundred times it"),
    ("0.5", r"50\%", 1, "the value of a percentage"),
    ("5000", r"50\%", 0, "a hundred times a percentage"),
    (r"\$18", "18", 1, "dollars"),
    (r"18 \text{ dollars}", "18", 1, "dollars in words"),
    (r"5 \text{ cm}", "5", 1, "a unit where the answer has none"),
    (r"5 \text{ cm}", r"5 \text{ m}", 0, "another unit"),
    (r"5 \text{ cm}^2", r"5 \text{ cm}", 0, "another power of the unit"),
    ("5m", "5", 0, "m may be a variable"),
    ("5", "5t", 0, "and so may t"),
    (r"90^\circ", "90", 1, "degrees"),
    ("18.", "18", 1, "a full stop"),
    ("18!", "18", 0, "an exclamation mark is a factorial"),
    # equations, terms, relations
    ("x = 5", "5", 1, "an assignment"),
    ("y = 5", "x = 5", 0, "of another variable"),
    (r"9 \times 2 = 18", "18", 1, "a calculation that is right"),
    ("17 = 18", "18", 0, "a calculation that is wrong"),
    ("18 = 18", "18", 1, "a calculation that says little"),
    (r"x \neq 5", "5", 0, "all but the answer"),
    (r"x \geq 5", "5", 0, "a bound"),
    (r"x \approx 5", "5", 0, "about"),
    (r"x \geq 5", "x > 5", 0, "with the bound"),
    ("5 < x", "x > 5", 1, "the other way round"),
    ("x^2+2x+1", "(x+1)^2", 1, "a product multiplied out"),
    ("x^2+2x+2", "(x+1)^2", 0, "and wrong"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", 1, "a rational denominator"),
    ("x", "5", 0, "a variable"),
    ("2x", "2y", 0, "another variable"),
    # boxes in boxes, and code
    (r"\boxed{5}", "5", 1, "a box in a box"),
    (r"3 + \boxed{5}", "5", 0, "a box in a box with more around it"),
    (r"\boxed{}", "5", 0, "an empty box in a box"),
    ("__import__('os').system('touch broken')", "5", 0, "code"),
    ("exec('5')", "5", 0, "code"),
    ("5 if True else 6", "5", 0, "code"),
    ("().__class__.__bases__[0]", "5", 0, "code"),
    ("lambda: 5", "5", 0, "code"),
    ("5;import os", "5", 0, "code"),
    ("5#6", "5", 0, "a comment"),
    ("5%%6", "5", 0, "percent signs"),
    (r"\input{/etc/passwd}", "5", 0, "LaTeX that reads files"),
    ("True", "1", 0, "a truth value"),
    ("1=1", "1", 1, "a calculation that is right, of 1"),
    ("1=1", "True", 0, "but no truth value"),
]
# A whole response, gold answer, expected score, why.
RESPONSES: list[tuple[str, str, float, str]] = [
    ("", "5", 0, "nothing"),
    (" \n\t", "5", 0, "white space"),
    ("I do not know.", "5", 0, "no answer"),
    (r"\boxed{5} or \boxed{6}", "6", 1, "the last box counts"),
    (r"\boxed{5} or \boxed{6}", "5", 0, "and no other"),
    (r"\boxed{5}, \boxed{6}", "5, 6", 0, "nor both"),
    (r"\boxed{5}, then \boxed{}", "5", 0, "nor an earlier one when the last is empty"),
    (r"\boxed{5}, then \boxed{6", "5", 0, "or never closed"),
    (r"\boxed{5}, then \boxed{6", "6", 0, "which is no answer either"),
    (r"The answer is 5. \boxed{6}", "5", 0, "a box goes before text"),
    (r"\fbox{5}", "5", 1, "another box"),
    (r"\boxed {5}", "5", 1, "a space before the brace"),
    (r"\boxed{5} " + "so " * 400_000, "5", 0, "1 MB of text after the box"),
    ("so " * 400_000 + r"\boxed{5}", "5", 1, "1 MB of text before it"),
    (r"\boxed{" * 150_000, "5", 0, "1 MB of boxes that open"),
    (r"\boxed{5}" * 120_000, "5", 1, "1 MB of boxes"),
    (r"\boxed{" * 2_000 + "5" + "}" * 2_000, "5", 0, "boxes in boxes in boxes"),
    (r"\boxed{" + "5" * 1_000_000 + "}", "5", 0, "1 MB in the box"),
    ("$" * 1_000_000, "5", 0, "1 MB of dollars"),
    ("1 " * 500_000, "1", 1, "1 MB of numbers"),
    ("\\" * 1_000_000, "5", 0, "1 MB of backslashes"),
    ("{" * 1_000_000, "5", 0, "1 MB of braces"),
    ("answer: " * 100_000, "5", 0, "1 MB of announcements"),
    ("7" * 1_000_000, "7", 0, "1 MB of a number"),
    ("The answer is 10^10^10", "10", 0, "a tower without a box"),
    ("It is 9**9**9**9", "9", 0, "a tower as in Python"),
    ("The final answer is $\\frac{1}{2}$.", "0.5", 1, "a formula in a sentence"),
    ("so there are 1,234.", "1234", 1, "a number in a sentence"),
    ("#### 18", "18", 1, "as GSM8K marks it"),
    ("#### 18", "8", 0, "whole numbers only"),
    ("#### -18", "18", 0, "with their sign"),
    ("__import__('os').system('touch broken')", "5", 0, "code without a box"),
]


def item_of(response: str, gold: str) -> RewardItem:
    return RewardItem(response=response, answer=gold)


def test_there_are_a_hundred_and_more() -> None:
    assert len(ADVERSARIAL) + len(RESPONSES) >= 200


@pytest.mark.parametrize(("answer", "gold", "score", "why"), ADVERSARIAL, ids=lambda value: str(value)[:40])
def test_an_answer_in_a_box_earns_what_it_should(answer: str, gold: str, score: float, why: str) -> None:
    began = time.monotonic()
    found = score_mathematics(item_of(f"Therefore \\boxed{{{answer}}}.", gold))
    assert (found.value, found.error) == (score, None), why
    assert time.monotonic() - began < 5, why


@pytest.mark.parametrize(("response", "gold", "score", "why"), RESPONSES, ids=lambda value: str(value)[:40])
def test_a_response_earns_what_it_should(response: str, gold: str, score: float, why: str) -> None:
    began = time.monotonic()
    found = score_mathematics(item_of(response, gold))
    assert (found.value, found.error) == (score, None), why
    assert time.monotonic() - began < 5, why


@pytest.mark.parametrize(
    ("answers", "canonical"),
    [
        (["0.5", r"\frac{1}{2}", "1/2", r"\frac{2}{4}", "x = 0.50"], "1/2"),
        (["1,234", "1234", "1234.0", r"\$1234", "1234 dollars"], "1234"),
        ([r"\{2,1\}", "1, 2", "1 or 2"], "{1, 2}"),
        ([r"\text{Yes}", "yes", "YES."], "yes"),
        ([r"50\%", r"50 \text{ percent}"], "50%"),
        (["", "  "], None),
    ],
)
def test_spellings_of_an_answer_have_one_canonical_text(answers: list[str], canonical: str | None) -> None:
    assert {score_mathematics(item_of(f"\\boxed{{{answer}}}", "7")).answer for answer in answers} == {canonical}


@given(text=st.text(st.characters(exclude_characters="\\"), max_size=60), gold=st.integers(-(10**12), 10**12))
def test_text_around_a_boxed_number_does_no_harm(text: str, gold: int) -> None:
    response = f"{text}\\boxed{{{gold}}}{text}"
    assert score_mathematics(item_of(response, str(gold))).value == 1.0
    assert score_mathematics(item_of(response, str(gold + 1))).value == 0.0


@given(gold=st.integers(-(10**9), 10**9), other=st.integers(-(10**9), 10**9), scale=st.integers(1, 10**6))
def test_fractions_are_equal_exactly_when_their_values_are(gold: int, other: int, scale: int) -> None:
    answer = f"\\boxed{{\\frac{{{other * scale}}}{{{7 * scale}}}}}"
    assert score_mathematics(item_of(answer, f"{gold}/7")).value == float(gold == other)


@given(text=st.text(r"\{}()[]^_!=<>,.%$+-*/0123456789xyabfrcqtdoe ", max_size=24))
def test_no_formula_raises_or_passes_for_a_number_it_does_not_have(text: str) -> None:
    assert score_mathematics(item_of(f"\\boxed{{{text}}}", "8231764.5")).value == 0.0


def test_every_gsm8k_answer_scores_1_in_a_box_and_every_wrong_number_0() -> None:
    plain = [gold.replace(",", "") for gold in GOLD]
    right = [item_of(f"So it is \\boxed{{{gold}}}.", gold) for gold in GOLD]
    bare = [item_of(f"So it is \\boxed{{{number}}}.", gold) for number, gold in zip(plain, GOLD, strict=True)]
    marked = [item_of(f"So it is \\boxed{{{int(number):,}}}.", number) for number in plain]
    wrong = [item_of(f"So it is \\boxed{{{int(number) + 1}}}.", gold) for number, gold in zip(plain, GOLD, strict=True)]
    reference = [item_of(problem["answer"], gold) for problem, gold in zip(PROBLEMS, GOLD, strict=True)]
    began = time.monotonic()
    with RewardPool(MathReward(), LimitsConfig(workers=2)) as pool:
        batches = [pool.score(items) for items in (right, bare, marked, wrong, reference)]
    assert time.monotonic() - began < 60
    assert len(PROBLEMS) == 1319
    for scores, expected in zip(batches[:4], (1.0, 1.0, 1.0, 0.0), strict=True):
        assert {(score.value, score.error) for score in scores} == {(expected, None)}
    assert sum(score.value for score in batches[4]) >= 0.99 * len(PROBLEMS)
