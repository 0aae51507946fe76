"""Finding the model an experiment names, and mistakes in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from orchestrator import model_files
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.model_files import EMBEDDED, embedded_model, find_model


def experiment(path: str | Path, max_response_tokens: int = 8) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "name": "e",
            "model": {"path": str(path)},
            "task": {"kind": "arithmetic"},
            "rollout": {"prompts_per_step": 4, "group_size": 2, "max_response_tokens": max_response_tokens},
            "scheduler": {"kind": "constant"},
            "steps": 10,
        }
    )


def model_folder(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def mistake(path: str | Path, max_response_tokens: int = 8) -> str:
    """The message about an experiment with this model; always one line."""
    with pytest.raises(ConfigError) as raised:
        find_model(experiment(path, max_response_tokens), "e.yaml")
    assert "\n" not in str(raised.value)
    return str(raised.value)


class FakeHub:
    """Stands in for the hub and its name server: nothing is fetched, and every name is unknown unless in `models`."""

    def __init__(self) -> None:
        self.models: dict[str, Path] = {}
        self.reachable = True
        self.asked_offline: list[bool] = []

    def getaddrinfo(self, *args: Any) -> list[Any]:
        if not self.reachable:
            raise OSError("Temporary failure in name resolution")
        return []

    def download(self, name: str, file: str, local_files_only: bool) -> str:
        self.asked_offline.append(local_files_only)
        if name in self.models:
            return str(self.models[name] / file)
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache\nsecond line")
        raise OSError(f"{name} is no model\nsecond line")


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(model_files, "hf_hub_download", fake.download)
    monkeypatch.setattr(model_files.socket, "getaddrinfo", fake.getaddrinfo)
    monkeypatch.setattr(model_files, "getproxies", dict)
    return fake


def test_the_embedded_model_is_found_with_its_context() -> None:
    found = find_model(experiment(EMBEDDED), "e.yaml")
    assert found.path == embedded_model()
    assert found.context_length == 512


def test_a_folder_is_found_with_its_context(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"max_position_embeddings": 64})
    found = find_model(experiment(folder), "e.yaml")
    assert (found.path, found.context_length) == (str(folder), 64)


@pytest.mark.parametrize("reachable", [True, False])
def test_a_hub_name_is_kept_and_its_context_read(tmp_path: Path, hub: FakeHub, reachable: bool) -> None:
    hub.models["Qwen/Qwen3-4B-Base"] = model_folder(tmp_path, {"max_position_embeddings": 64})
    hub.reachable = reachable
    found = find_model(experiment("Qwen/Qwen3-4B-Base"), "e.yaml")
    assert (found.path, found.context_length) == ("Qwen/Qwen3-4B-Base", 64)
    assert hub.asked_offline == [not reachable]


def test_without_a_way_to_the_hub_only_the_cache_is_asked(hub: FakeHub) -> None:
    hub.reachable = False
    text = mistake("Qwen/Qwen3-4B-Base")
    assert hub.asked_offline == [True]
    assert text.startswith("e.yaml: model.path: got 'Qwen/Qwen3-4B-Base', expected")
    assert "the hub cannot be reached" in text


def test_a_proxy_is_a_way_to_the_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.reachable = False
    monkeypatch.setattr(model_files, "getproxies", lambda: {"https": "http://proxy:3128"})
    mistake("Qwen/Qwen3-4B-Base")
    assert hub.asked_offline == [False]


def test_a_folder_under_home_is_given_on_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model_folder(tmp_path / "model", {"max_position_embeddings": 64})
    assert find_model(experiment("~/model"), "e.yaml").path == str(tmp_path / "model")


def test_a_missing_folder_is_refused_with_the_path_and_the_reason() -> None:
    text = mistake(Path("/no such"))
    assert text.startswith("e.yaml: model.path: got '/no such', expected")
    assert "is no model" in text


@pytest.mark.parametrize("content", ["{", "", "[1]", "3"])
def test_a_broken_config_json_is_refused(tmp_path: Path, content: str) -> None:
    assert mistake(model_folder(tmp_path, content)).startswith(f"e.yaml: model.path: got '{tmp_path}', expected")


def test_a_folder_without_config_json_is_refused(tmp_path: Path) -> None:
    assert "model.path" in mistake(tmp_path)


@pytest.mark.parametrize("context", [None, "64", 64.0])
def test_a_model_that_does_not_say_its_context_is_refused(tmp_path: Path, context: Any) -> None:
    assert "max_position_embeddings" in mistake(model_folder(tmp_path, {"max_position_embeddings": context}))


@pytest.mark.parametrize("limit", [64, 65])
def test_responses_that_leave_no_room_for_a_prompt_are_refused(tmp_path: Path, limit: int) -> None:
    folder = model_folder(tmp_path, {"max_position_embeddings": 64})
    text = mistake(folder, limit)
    assert (
        text == f"e.yaml: rollout.max_response_tokens: got {limit}, expected less than the model's context of 64 tokens"
    )
    assert find_model(experiment(folder, 63), "e.yaml").context_length == 64
