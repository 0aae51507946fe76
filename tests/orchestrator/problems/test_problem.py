"""Problems: as short to write as they ever were, hashable, and their text without roles."""

import subprocess
import sys

from orchestrator.problems.problem import Message, Problem


def test_a_prompt_and_an_answer_are_enough() -> None:
    problem = Problem(prompt="347+285=", answer="632")
    assert (problem.source, problem.extra, problem.text) == ("", {}, "347+285=")


def test_the_text_of_messages_is_their_contents_with_blank_lines_between() -> None:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content="347+285="))
    assert Problem(prompt=messages, answer="632").text == "Be brief.\n\n347+285="


def test_problems_can_be_counted_in_sets_whatever_else_they_carry() -> None:
    one, two = (Problem(prompt="a", answer="b", extra={"index": [index]}) for index in range(2))
    assert one != two
    assert len({one, two, Problem(prompt="a", answer="b", extra={"index": [0]})}) == 2


def test_importing_a_problem_loads_no_reader() -> None:
    code = "import sys, orchestrator.problems.problem; print({'pyarrow', 'jinja2', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
