"""What the folder or hub entry of a model says about it, before anything heavy is loaded."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError

EMBEDDED = "embedded"
NEEDED = {"weights": ("*.safetensors", "*.bin"), "a tokenizer": ("tokenizer.json", "tokenizer_config.json")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Where a model is and how long its context is.

    Example:
        ModelFiles(path="orchestrator/demo/model", context_length=512)
    """

    path: str  # folder or hub name that vLLM and transformers can load
    context_length: int  # tokens


def find_model(config: ExperimentConfig, file: str) -> ModelFiles:
    """Find the model an experiment names and check the experiment's lengths against it.

    Args:
        config: one arm of the experiment.
        file: name of the experiment file, for messages.

    Raises:
        ConfigError: the model is not there, or its context is too short.
    """
    path = embedded_model() if config.model.path == EMBEDDED else _expanded(config.model.path)
    described = _read_config(path, config.model.path, file)
    context = described.get("max_position_embeddings")
    if not isinstance(context, int):
        raise ConfigError(
            file, "model.path", config.model.path, "a model whose config.json has max_position_embeddings"
        )
    longest = config.rollout.max_response_tokens
    if longest >= context:
        raise ConfigError(
            file, "rollout.max_response_tokens", longest, f"less than the model's context of {context} tokens"
        )
    folder = Path(path)
    if folder.is_dir():
        for kind, patterns in NEEDED.items():
            if not any(any(folder.glob(pattern)) for pattern in patterns):
                raise ConfigError(
                    file, "model.path", config.model.path, f"a folder with {kind} ({' or '.join(patterns)})"
                )
    return ModelFiles(path=path, context_length=context)


def _expanded(path: str) -> str:
    try:
        folder = Path(path).expanduser()
        return str(folder) if folder.is_dir() else path
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        return path


def embedded_model() -> str:
    """Folder of the tiny model that ships with Evenkeel."""
    return str(Path(__file__).parent / "demo" / "model")


def _from_hub(name: str) -> Path:
    # Asked only if it can be found: its client would otherwise try for half a minute before it says so.
    hub = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(hub, None)
        offline = False
    except OSError:
        offline = not getproxies()
    try:
        return Path(hf_hub_download(name, "config.json", local_files_only=offline))
    except LocalEntryNotFoundError:
        raise FileNotFoundError("no such folder, not in the local cache, and the hub cannot be reached") from None


def _read_config(path: str, written: str, file: str) -> dict[str, object]:
    try:
        folder = Path(path)
        config = folder / "config.json" if folder.is_dir() else _from_hub(path)
        described = json.loads(config.read_text(encoding="utf-8"))
    except Exception as error:  # the hub client has a type for every way not to find something; all mean the same here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            file, "model.path", written, f"'{EMBEDDED}', a model folder or a reachable hub name ({reason})"
        ) from None
    if not isinstance(described, dict):
        raise ConfigError(file, "model.path", written, "a config.json that holds a mapping")
    return described
