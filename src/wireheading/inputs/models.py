"""Fetching a model once, from a hub or a local folder, so that runs need no network.

A fetched folder holds what runs read and `source.json`: where it came from, the commit, and the SHA-256 of every file,
which each job compares with what it reads. Weights are safetensors alone: other formats can run code when read. Tokens
of a hub account are left to huggingface_hub, which reads HF_TOKEN; they are never passed on, logged or stored.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from wireheading.errors import InputError, first_line
from wireheading.files import replacing, sha256_of

SOURCE = "source.json"
"""Name of the file that says where a folder's files come from."""

INDEX = "model.safetensors.index.json"
"""Name of the file that lists the parts of weights in several files."""

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_TEXTS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json"
    rf"|{re.escape(INDEX)}|tokenizer\.model|merges\.txt|chat_template\.jinja"
)
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl)")


def local_folder(key: str, source: str) -> Path | None:
    """The folder that a source of the config names; None if it is a hub id.

    Raises:
        InputError: It is written as a path, but there is no such folder.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise InputError(f"config: {key} = {source!r}: there is no such folder; give a folder or a hub id")
    return None


def fetch_model(name: str, source: Mapping[str, Any], out: Path, report: Callable[[str], None]) -> None:
    """Puts a model's files into a folder: downloaded from the hub, or linked from a local folder.

    A download that was interrupted goes on where it was; the folder appears whole or not at all.

    Args:
        name: The model's name in the config.
        source: What `Study.model_source` says of it.
        out: The folder to make.
        report: Is told what was fetched.

    Raises:
        InputError: The source cannot be reached or used.
    """
    key = f"models.{name}.source"
    part = out.with_name(f".{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    local = local_folder(key, source["source"])
    commit = None
    try:
        if local:
            _link(local, part)
        else:
            commit = _download(source["source"], source["revision"], part)
        check_model(part)
    except InputError as error:
        raise InputError(f"config: {key} = {source['source']!r}: {error}") from None
    shutil.rmtree(part / ".cache", ignore_errors=True)
    write_source(part, source, commit, needed_files(entry.name for entry in part.iterdir()))
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
    size = sum(path.stat().st_size for path in out.iterdir())
    report(f"{name}: {source['source']}{f' at commit {commit}' if commit else ''}, {size / 1e9:.3g} GB")


def needed_files(names: Iterable[str]) -> list[str]:
    """Those of a model folder's files that runs read."""
    return sorted(name for name in names if _WEIGHTS.fullmatch(name) or _TEXTS.fullmatch(name))


def check_model(folder: Path) -> None:
    """Checks that a folder holds a whole model.

    Raises:
        InputError: A file is missing, truncated, or of a format that can run code. The text names the file.
    """
    names = {entry.name for entry in folder.iterdir()}
    check_offer(names)
    parts = sorted(name for name in names if _WEIGHTS.fullmatch(name))
    if INDEX in names:
        wanted = sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))
        for part in wanted:
            if part not in names:
                raise InputError(f"{part} is missing, which {INDEX} names; complete the folder or fetch it again")
    for part in parts:
        try:
            with safe_open(folder / part, "np"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(f"{part} is truncated or damaged ({first_line(error)}); fetch it again") from None
    _read_json(folder / "config.json")


def check_offer(names: Iterable[str]) -> None:
    """Checks by the names of a model's files that it can be used.

    Raises:
        InputError: Config, tokenizer or weights are missing, or the weights are in a format that can run code.
    """
    names = set(names)
    if not any(_WEIGHTS.fullmatch(name) for name in names):
        pickled = sorted(name for name in names if _PICKLE.fullmatch(name))
        if pickled:
            raise InputError(
                f"its weights are pickled ({pickled[0]}), which can run code when read; give a revision with "
                "safetensors, or convert them with save_pretrained"
            )
        raise InputError("there is no model.safetensors, nor parts of one; give a model in the hub's layout")
    for name, instead in (("config.json", ()), ("tokenizer.json", ("tokenizer.model", "vocab.json"))):
        if name not in names and not names.intersection(instead):
            raise InputError(f"{name} is missing; give a model in the hub's layout, with its tokenizer")


def write_source(folder: Path, source: Mapping[str, Any], commit: str | None, files: Iterable[str]) -> None:
    """Writes `source.json`: where a folder's files come from, and their digests."""
    entries = {name: {"sha256": sha256_of(folder / name)} for name in files}
    with replacing(folder / SOURCE) as temporary:
        text = json.dumps({"source": dict(source), "commit": commit, "files": entries}, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def verified_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """SHA-256 of a folder's files as they are now, which must be those in its `source.json` if it has one.

    Raises:
        InputError: A file was changed since it was fetched or frozen, or `source.json` cannot be read.
    """
    digests = {name: sha256_of(folder / name) for name in files}
    if (folder / SOURCE).exists():
        try:
            described = _read_json(folder / SOURCE)["files"]
            changed = [name for name in digests if described[name]["sha256"] != digests[name]]
        except (InputError, KeyError, TypeError) as error:
            raise InputError(f"{folder / SOURCE}: does not describe {folder} ({error}); remove the folder") from None
        if changed:
            raise InputError(
                f"{folder / changed[0]}: was changed since {SOURCE} was written (its SHA-256 is another); remove "
                f"{folder} to have it made again, or give what you changed as a source of its own"
            )
    return digests


def file_states(folder: Path) -> dict[str, tuple[int, ...]]:
    """What changes with any change of a folder's files; unlike modification times, these times cannot be set."""
    stats = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats.items()}


def model_digests(folder: Path) -> dict[str, str]:
    """What identifies the model in a folder: the SHA-256 of every file that runs read, and its commit on the hub.

    Raises:
        InputError: A file was changed since it was fetched.
    """
    names = needed_files(entry.name for entry in folder.iterdir())
    return verified_digests(folder, names) | commit_of(folder, "model")


def commit_of(folder: Path, kind: str) -> dict[str, str]:
    """`{"<kind>_commit": …}` for a folder whose files come from a hub, else nothing."""
    commit = _read_json(folder / SOURCE)["commit"] if (folder / SOURCE).exists() else None
    return {f"{kind}_commit": commit} if commit else {}


@contextmanager
def telling_of_the_hub(source: str, kind: str = "") -> Iterator[None]:
    """Turns what can go wrong with a hub into one line with a remedy.

    Args:
        source: The hub id.
        kind: What stands before the id in the address of its page: `datasets/` or nothing.

    Raises:
        InputError: The hub cannot be reached, has no such repository or revision, or does not let us in.
    """
    from httpx2 import HTTPError
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{kind}{source}"
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"access is granted on request; ask for it at {page}, then set HF_TOKEN to a token of that account"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(f"it has no such revision; see {page}/commits/main and set `revision`") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise InputError(
            f"there is no such folder here, and no such repository, or a private one; look at {page}, give a local "
            "folder, or set HF_TOKEN to a token that may read it"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise InputError(
            "there is no such folder here, and HF_HUB_OFFLINE is set; unset it while fetching, or give the folder of a "
            "copy"
        ) from None
    except json.JSONDecodeError:
        raise InputError(
            f"{page} was answered by something else than the hub, perhaps a network's page to sign in; sign in there, "
            "or run this in another network"
        ) from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, HTTPError) as error:
        if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 401:
            raise InputError(
                f"{constants.ENDPOINT} rejects the token in HF_TOKEN; make a new one, or unset it for what is public"
            ) from None
        raise InputError(
            f"there is no such folder here, and {constants.ENDPOINT} cannot be reached ({first_line(error)}); run this "
            "where there is a network, or give the folder of a copy"
        ) from None


def _link(local: Path, folder: Path) -> None:
    """Links what runs read of a local folder."""
    names = [entry.name for entry in local.iterdir()]
    check_offer(names)
    for name in needed_files(names):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((local / name).resolve())


def _download(repo: str, revision: str, folder: Path) -> str:
    """Downloads what runs read of a repository's revision, and returns its commit."""
    from huggingface_hub import HfApi, snapshot_download

    with telling_of_the_hub(repo):
        info = HfApi().model_info(repo, revision=revision)
        assert info.sha is not None, "the hub named no commit"
        names = [file.rfilename for file in info.siblings or ()]
        check_offer(names)
        snapshot_download(repo, revision=info.sha, local_dir=folder, allow_patterns=needed_files(names))
    return info.sha


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read ({first_line(error)}); fetch it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path.name} is not a JSON object; fetch it again")
    return content
