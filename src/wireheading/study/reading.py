"""Reads what a user wrote as a configuration, and reports what is wrong with it in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from wireheading.errors import ConfigError

SHOWN = 80
"""Characters of a value that a message quotes."""

EXAMPLES = {
    "models": "`models: {NAME: {source: HUB_ID_OR_FOLDER}}`; on the command line `models={NAME: {enabled: false}}` "
    "leaves one out",
    "tasks": "`tasks: {NAME: {data: …, prompt: …}}`",
}
"""How to write the sections whose keys are names."""


class _Loader(yaml.SafeLoader):
    """YAML that rejects duplicate keys, where PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"{key} is given twice; keep one")
        return super().construct_mapping(node, deep)


def read_config(path: Path) -> dict[str, Any]:
    """Reads a config file, in YAML or JSON.

    Raises:
        ConfigError: There is no such file, it is not YAML, it is empty, or it gives a key twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give --configfile, or run this where the workflow is") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a file to --configfile") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({_cut(' '.join(str(error).split()))})") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: holds no settings; config/config.yaml shows how they are written")
    return content


def check_values(config: Mapping[str, Any]) -> None:
    """Checks what no schema can: that every text can be written to a file, and every integer printed.

    Raises:
        ConfigError: Names the first key whose value cannot.
    """
    for key, value in _leaves(config, ()):
        name = ".".join(key)
        if isinstance(value, int) and abs(value) >= 2**64:
            raise ConfigError(f"config: {_cut(name)}: an integer of {value.bit_length()} bits; write a smaller one")
        for text in (value, *key):
            if isinstance(text, str) and ("\0" in text or not _encodable(text)):
                place = f"{_cut(ascii(name)[1:-1])} = {_cut(ascii(value))}"
                raise ConfigError(f"config: {place}: holds a character that cannot be written")


def explain(study: type[BaseModel], error: ValidationError) -> str:
    """The first problem that pydantic found: key, value and remedy in one line.

    Args:
        study: The model of a whole configuration.
        error: The error of its validation.
    """
    first = error.errors()[0]
    path = tuple(str(part) for part in first["loc"])
    key, kind = ".".join(path), first["type"]
    problem = first["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        problem = f"unknown key; {_nearest(study, path)}"
    elif kind == "missing":
        return f"{key}: missing; {_described(study, path)}"
    elif kind == "tuple_type":
        problem = f"write a list, such as [{_shown(first['input'])}]"
    elif kind in ("dict_type", "model_type"):
        problem = f"write {EXAMPLES.get(key, 'keys and values, such as {key: value}')}"
    elif kind in ("bool_type", "bool_parsing"):
        problem = "write true or false"
    elif kind == "string_pattern_mismatch":
        problem = "a folder's name may hold only letters, digits and . _ / + -"
    return f"{key} = {_shown(first['input'])}: {problem}" if key else problem


def _leaves(value: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _leaves(member, (*key, str(name)))
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _leaves(member, (*key, str(index)))
    else:
        yield key, value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keys(section: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all keys; `*` stands for a name that the user chooses."""
    for name, field in section.model_fields.items():
        yield (*prefix, name)
        named = get_origin(field.annotation) is dict
        inner = get_args(field.annotation)[-1] if named else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, (*prefix, name, "*") if named else (*prefix, name))


def _nearest(study: type[BaseModel], path: tuple[str, ...]) -> str:
    """The known key that an unknown key most likely stands for: a similar one nearby, or the same one elsewhere."""
    *within, last = path
    keys = list(_keys(study))
    beside = [
        key[-1]
        for key in keys
        if len(key) == len(path) and all(a in (b, "*") for a, b in zip(key, within, strict=False))
    ]
    elsewhere = [".".join(key).replace("*", "NAME") for key in keys if key[-1] == last]
    near, similar = (
        [".".join((*within, name)) for name in difflib.get_close_matches(last, beside, 1, cutoff)]
        for cutoff in (0.8, 0.6)
    )
    meant = near + elsewhere + similar
    if meant:
        return f"did you mean {meant[0]}?"
    return "workflow/schemas/config.schema.json lists the known ones"


def _described(study: type[BaseModel], path: tuple[str, ...]) -> str:
    """How to set a key that has no default."""
    if path[0] in EXAMPLES and len(path) == 1:
        return f"write {EXAMPLES[path[0]]}, or name a config file with --configfile"
    return "workflow/schemas/config.schema.json describes it"


def _shown(value: Any) -> str:
    """A value as a message quotes it: on one line, and shortened."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]}…{text[-20:]}"
