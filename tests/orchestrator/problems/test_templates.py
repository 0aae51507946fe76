"""Templates with a real tokenizer: chat, plain and text; nothing twice, and nothing of the problem lost."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import orchestrator.demo
from orchestrator.config_errors import ConfigError
from orchestrator.problems.problem import Message, Problem
from orchestrator.problems.templates import Template

MODEL = Path(orchestrator.demo.__file__).parent / "model"
TEXT = Problem(prompt=" 12+3=", answer="15")
SYSTEM = Message(role="system", content="1+1=2")
MESSAGES = Problem(prompt=(SYSTEM, Message(role="user", content="12+3=")), answer="15")
CHAT = (
    "<eos>{% for message in messages %}[{{ message['role'] }}]{{ message['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
INSTEAD = "plain, or a text with {problem} in it"


def tokenizer(chat_template: str | None = None) -> Any:
    """The demo model's; as many others do, it puts a token in front of every text if it is let."""
    loaded = AutoTokenizer.from_pretrained(MODEL)
    loaded.chat_template = chat_template
    loaded.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 1)])
    assert loaded("1")["input_ids"][0] == loaded.eos_token_id
    return loaded


def template(text: str, chat_template: str | None = None) -> Template:
    return Template(text, tokenizer(chat_template), "gsm8k.yaml")


def test_plain_is_the_prompt_as_it_is_and_of_messages_their_contents() -> None:
    assert template("plain").render(TEXT) == " 12+3="
    assert template("plain").render(MESSAGES) == "1+1=2\n\n12+3="


def test_a_text_has_the_problem_in_its_place_and_braces_are_only_braces() -> None:
    assert template(r"Box it: \boxed{} {0} {problem}{problem}").render(TEXT) == r"Box it: \boxed{} {0}  12+3= 12+3="
    assert template("<{problem}>").render(MESSAGES) == "<1+1=2\n\n12+3=>"
    assert template("<{problem}>").render(Problem(prompt="{problem}", answer="")) == "<{problem}>"


def test_chat_is_the_template_of_the_tokenizer_with_the_opening_of_the_answer() -> None:
    assert template("chat", CHAT).render(TEXT) == "<eos>[user]12+3=[assistant]"
    assert template("chat", CHAT).render(MESSAGES) == "<eos>[system]1+1=2[user]12+3=[assistant]"


def test_a_special_token_that_the_chat_template_writes_is_one_token_and_comes_once() -> None:
    loaded = tokenizer("<eos>{{ messages[0]['content'] }}")
    ids = Template("chat", loaded, "gsm8k.yaml").encode(Problem(prompt="12+3=", answer="15"))
    assert loaded.convert_ids_to_tokens(ids) == ["<eos>", *"12+3="]


@pytest.mark.parametrize(("text", "tokens"), [("plain", "12+3="), ("1+{problem}", "1+12+3=")])
def test_nothing_is_added_to_a_prompt_without_a_chat_template(text: str, tokens: str) -> None:
    ids = template(text).encode(Problem(prompt="12+3=", answer="15"))
    assert tokenizer().convert_ids_to_tokens(ids) == list(tokens)
    assert all(type(token) is int for token in ids)


@pytest.mark.parametrize("problem", [TEXT, MESSAGES])
@pytest.mark.parametrize(("text", "chat_template"), [("chat", CHAT), ("plain", None), ("1+{problem}", None)])
def test_a_template_that_keeps_the_problem_is_fine(text: str, chat_template: str | None, problem: Problem) -> None:
    template(text, chat_template).check(problem)


def test_what_an_assistant_has_thought_may_be_left_out() -> None:
    shortened = CHAT.replace("| trim", "| replace('12', '')")
    assistant = Problem(prompt=(SYSTEM, Message(role="assistant", content="12")), answer="15")
    template("chat", shortened).check(assistant)


# Mistakes.


def mistake_in(text: str, problem: Problem, chat_template: str | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        template(text, chat_template).check(problem)
    return str(raised.value)


@pytest.mark.parametrize("chat_template", [None, ""])
def test_a_tokenizer_without_a_chat_template_is_told_with_what_else_can_be_said(chat_template: str | None) -> None:
    assert mistake_in("chat", TEXT, chat_template) == (
        f"gsm8k.yaml: task.template: got 'chat', expected {INSTEAD}: the model's tokenizer has no chat template"
    )


def test_the_key_that_has_the_template_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        Template("Solve it.", tokenizer(), "gsm8k.yaml", "evaluation.sets.math.template")
    assert str(raised.value) == (
        f"gsm8k.yaml: evaluation.sets.math.template: got 'Solve it.', expected chat, {INSTEAD}"
    )


@pytest.mark.parametrize(
    ("chat_template", "problem", "role"),
    [
        ("Solve it.", TEXT, "user"),
        (CHAT.replace("messages %}", "messages if message['role'] == 'user' %}"), MESSAGES, "system"),
        (CHAT.replace("messages %}", "messages if message['role'] == 'system' %}"), MESSAGES, "user"),
    ],
)
def test_a_chat_template_that_drops_the_problem_is_refused(chat_template: str, problem: Problem, role: str) -> None:
    assert mistake_in("chat", problem, chat_template) == (
        f"gsm8k.yaml: task.template: got 'chat', expected {INSTEAD}: the tokenizer's chat template drops the text of "
        f"the {role}"
    )


@pytest.mark.parametrize(
    ("chat_template", "why"),
    [
        ("{{ raise_exception('no system,\nplease') }}", "no system, please"),
        ("{{ messages[0]['content'] + 1 }}", 'can only concatenate str (not "int") to str'),
        ("{{ messages[0].a.b }}", "'dict object' has no attribute 'a'"),
        ("{% if %}", "Expected an expression, got 'end of statement block'"),
    ],
)
def test_a_chat_template_that_refuses_the_messages_is_told_with_its_reason(chat_template: str, why: str) -> None:
    assert mistake_in("chat", MESSAGES, chat_template) == (
        f"gsm8k.yaml: task.template: got 'chat', expected {INSTEAD}: the tokenizer's chat template refuses "
        f"'1+1=2\\n\\n12+3=' ({why})"
    )
