"""The JSON files of a checkpoint folder, read once for the data side and for the model. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxguard.errors import UserError
from jaxguard.files import read_object

QUANTISED = ("quantization_config", "compression_config")


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json, with the id of the image token as `image_token_index`, if any file of the folder names it.

    Raises:
        UserError: unreadable files, a quantised checkpoint, or files that name different image tokens.
    """
    path = folder / "config.json"
    config = read_object(path)
    for part in ("text_config", "vision_config", "qformer_config", "perceiver_config"):
        if not isinstance(config.get(part) or {}, dict):
            raise UserError(f"{path}: {part} holds a {type(config[part]).__name__}, not an object")
    _check_quantised(config, path)
    stated = {name: config.pop(name) for name in ("image_token_index", "image_token_id") if name in config}
    named = [value for value in stated.values() if value is not None]
    token = named[0] if named else None
    if any(type(value) is not int or value < 0 or value != token for value in named):
        shown = ", ".join(f"{name} {value!r}" for name, value in stated.items())
        raise UserError(f"{path}: {shown} must name one token by its number")
    found = _tokenizer_image(folder)
    if token is not None and found is not None and found[1] != token:
        raise UserError(
            f"{path}: {found[0]} of the tokenizer is {found[1]}, config.json says {token}; correct image_token_index"
        )
    token = found[1] if token is None and found is not None else token
    return config if token is None else config | {"image_token_index": token}


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """Read the image processor's settings: `image_processor` of processor_config.json, else preprocessor_config.json.

    Entries that are null are left out.

    Raises:
        UserError: unreadable files.
    """
    values = _optional(folder / "processor_config.json").get("image_processor")
    if values is None:
        values = _optional(folder / "preprocessor_config.json")
    if not isinstance(values, dict):
        raise UserError(f"{folder / 'processor_config.json'}: image_processor holds a {type(values).__name__}")
    return {name: value for name, value in values.items() if value is not None}


def read_generation(folder: Path) -> dict[str, Any]:
    """Read generation_config.json; empty if there is none.

    Raises:
        UserError: it is unreadable.
    """
    return _optional(folder / "generation_config.json")


def read_template(folder: Path, tokenizers: Any) -> str | None:
    """Return the chat template: that of the processor's files, else the tokenizer's; None if there is none.

    Args:
        folder: the checkpoint folder.
        tokenizers: the tokenizer's own template, or its named templates.

    Raises:
        UserError: files hold different templates, or none of several is the default.
    """
    legacy, jinja = folder / "chat_template.json", folder / "chat_template.jinja"
    found: dict[str, Any] = {}
    if (value := _optional(folder / "processor_config.json").get("chat_template")) is not None:
        found["processor_config.json"] = value
    if (value := _optional(legacy).get("chat_template")) is not None:
        found[legacy.name] = value
    if jinja.is_file():
        found[jinja.name] = jinja.read_text(encoding="utf-8")
    if not found and tokenizers:
        found["tokenizer_config.json"] = tokenizers
    texts = {name: _default(value, folder / name) for name, value in found.items()}
    if len(set(texts.values())) > 1:
        raise UserError(f"{' and '.join(texts)} hold different chat templates; keep one")
    return next(iter(texts.values()), None)


def _default(value: Any, path: Path) -> str:
    """Return the template, or the one of several that is named "default"."""
    if isinstance(value, list):
        value = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
    value = value.get("default") if isinstance(value, dict) else value
    if not isinstance(value, str):
        raise UserError(f"{path}: chat_template is neither a text nor several of which one is named default")
    return value


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _check_quantised(config: dict[str, Any], path: Path) -> None:
    for part in (config, config.get("text_config") or {}, config.get("vision_config") or {}):
        for name in QUANTISED:
            if part.get(name):
                stated = part[name] if isinstance(part[name], dict) else {}
                method = stated.get("quant_method", stated.get("format", "by an unnamed method"))
                raise UserError(
                    f"{path}: this checkpoint is quantised ({method}: {name}), which cannot be trained; give the "
                    "full-precision one that it was made from"
                )


def _tokenizer_image(folder: Path) -> tuple[str, int] | None:
    """Return name and id of the image token in the tokenizer's files; None if they have none.

    Raises:
        UserError: the files are not those of a tokenizer.
    """
    settings = _optional(folder / "tokenizer_config.json")
    extra = settings.get("extra_special_tokens")
    name = settings.get("image_token") or (extra.get("image_token") if isinstance(extra, dict) else None) or "<image>"
    name = name.get("content") if isinstance(name, dict) else name
    try:
        return next(((token, number) for token, number in _tokens(folder, settings) if token == name), None)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its tokenizer files are not as tokenizers write them ({error})") from error


def _tokens(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the tokens that the tokenizer's files name beside its vocabulary, then those of the vocabulary."""
    whole = _optional(folder / "tokenizer.json")
    for item in whole.get("added_tokens") or []:
        yield item.get("content"), item.get("id")
    yield from _optional(folder / "added_tokens.json").items()
    for number, item in (settings.get("added_tokens_decoder") or {}).items():
        yield item.get("content"), int(number)
    vocabulary = (whole.get("model") or {}).get("vocab")
    yield from vocabulary.items() if isinstance(vocabulary, dict) else ()
