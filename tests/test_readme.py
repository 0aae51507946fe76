"""What the README and docs/ promise is there: make targets, the folders of the file tree, links and pictures."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"\bmake ([a-z][\w-]*)")
TARGET = re.compile(r"^([a-z][\w-]*):", re.MULTILINE)
PLAIN_FOLDER = re.compile(r"^([\w.-]+)/(?=\s|$)", re.MULTILINE)
BRANCH_FOLDER = re.compile(r"^[├└]── ([\w.-]+)/(?=\s|$)", re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)>\s]+)|(?:src|href)=[\"']([^\"']+)")


def code_blocks(text: str) -> list[str]:
    return FENCE.findall(text)


def make_targets(text: str) -> set[str]:
    """The targets that a page tells its reader to make, in code blocks and in inline code."""
    spans = [*code_blocks(text), *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]
    return {target for span in spans for target in MAKE.findall(span)}


def tree_folders(text: str) -> set[str]:
    """The top-level folders of the trees in a page: the branches of a single root, or else the plain `name/` lines."""
    folders = set()
    for block in code_blocks(text):
        plain, branches = PLAIN_FOLDER.findall(block), BRANCH_FOLDER.findall(block)
        folders.update(branches if branches and len(plain) <= 1 else plain)
    return folders


def broken_links(page: Path) -> list[str]:
    """The relative links and pictures of a page that lead nowhere; addresses and anchors are not followed."""
    text = re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text()))
    links = [unquote(link or attribute) for link, attribute in LINK.findall(text)]
    relative = [link.partition("#")[0] for link in links if not re.match(r"[a-z][a-z0-9+.-]*:|#|//", link)]
    return [link for link in relative if not (page.parent / link).exists()]


def test_the_readme_names_the_two_commands_and_each_is_in_the_makefile() -> None:
    promised = make_targets(README.read_text())
    assert {"demo", "test"} <= promised
    assert promised <= set(TARGET.findall((ROOT / "Makefile").read_text()))


def test_the_readme_tree_shows_the_house_and_only_folders_that_exist() -> None:
    shown = tree_folders(README.read_text())
    assert {"actors", "cluster", "orchestrator", "sweeps"} <= shown
    assert [folder for folder in sorted(shown) if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_and_picture_resolves(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_promise_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "here.png").touch()
    page.write_text(
        "[a](gone.md#part) ![b](here.png) [c](https://x.y/z) [d](#anchor) <img src='lost.png'> `[e](code.md)`\n"
        "and `make demo`, but do not make haste\n"
        "```text\nactors/    what\n├── deep/\nsweeps/    which\nmake test ACCELERATOR=gpu\n```\n"
    )
    assert broken_links(page) == ["gone.md", "lost.png"]
    assert make_targets(page.read_text()) == {"demo", "test"}
    assert tree_folders(page.read_text()) == {"actors", "sweeps"}
    assert tree_folders("```\nevenkeel/\n├── actors/\n│   └── deep/\n└── sweeps/\n```\n") == {"actors", "sweeps"}
