"""The Hub: what a file may say of this machine, cards, how a folder goes up and comes down, and what went wrong."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsecbm._base.errors import InputError, StoredFileError

NOT_PUBLISHED = "(not published)"
"""Stands for a place of the machine that wrote a file."""

_LOCAL = re.compile(
    r"^((?:folder|parquet|open_clip:local-dir):).*"  # local by their kind
    r"|^(\w+:)?(?:/(?!/)|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\).*",  # a path from a root, a home or here
    re.DOTALL,
)


def published(value: Any) -> Any:
    """Metadata without the places of this machine: local specs keep their kind, absolute paths nothing.

    Examples
    --------
    >>> published({"images": {"spec": "folder:/home/ann/photos"}, "encoder": {"spec": "bundled"}})
    {'images': {'spec': 'folder:(not published)'}, 'encoder': {'spec': 'bundled'}}
    """
    if isinstance(value, Mapping):
        return {key: published(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [published(item) for item in value]
    if isinstance(value, Path):
        return value.name
    return (
        _LOCAL.sub(lambda found: f"{found[1] or found[2] or ''}{NOT_PUBLISHED}", value)
        if isinstance(value, str)
        else value
    )


def make_card(front: Mapping[str, Any], title: str, sections: Mapping[str, str]) -> str:
    """Return a card: the header that the Hub reads, a title, and sections; the empty ones are left out.

    Values of the header are written as JSON, which is YAML.
    """
    header = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items() if value]
    held = {name: text.strip() for name, text in sections.items() if text}
    body = [f"## {name}\n\n{text}\n" if name else f"{text}\n" for name, text in held.items()]
    return "\n".join(["---", *header, "---", "", f"# {title}", "", *body])


def shown_names(names: Sequence[Any], limit: int = 40) -> str:
    """List names as code, so that none of them is read as markup."""
    listed = ", ".join(f"`{' '.join(str(name).replace('`', chr(39)).split())}`" for name in names[:limit])
    return listed + (f", and {len(names) - limit:,} more" if len(names) > limit else "")


def upload(
    save: Callable[[Path], Any],
    repo_id: str,
    *,
    repo_type: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload with sparsecbm",
) -> str:
    """Upload what `save` writes into a folder; returns the address of the commit.

    Parameters
    ----------
    save : callable
        Writes into the folder that it is given.
    repo_id, repo_type, private, token, revision, create_pr, commit_message
        As in ``huggingface_hub.HfApi``; the repository is made if it does not exist.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder, explained_hub(f"upload {repo_id!r}"):
        save(Path(folder))  # what cannot be saved makes no repository
        name = api.create_repo(repo_id, private=private, repo_type=repo_type, exist_ok=True).repo_id
        done = api.upload_folder(
            repo_id=name,
            repo_type=repo_type,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )
    return str(done.commit_url)


def download(
    name: str | Path, files: Sequence[str], *, any_of: bool = False, repo_type: str | None = None, **options: Any
) -> Path:
    """Return a folder with these files: `name` itself if it is one, else that of a repository of the Hub.

    Parameters
    ----------
    name : str or Path
    files : sequence of str
    any_of : bool
        Whether one of them is enough.
    repo_type : str, optional
    **options
        Of ``huggingface_hub.snapshot_download``: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ...
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    with explained_hub(f"get {str(name)!r}"):
        folder = Path(snapshot_download(str(name), repo_type=repo_type, allow_patterns=list(files), **options))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing and not (any_of and len(missing) < len(files)):
        raise StoredFileError(f"cannot get {str(name)!r} from the hub: it has no {missing[0]}; is it another model?")
    return folder


@contextlib.contextmanager
def explained_hub(what: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line; `what` stands after "cannot".

    Raises
    ------
    StoredFileError
        In place of an error of the Hub, of its client or of the network.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = hub_problem(error)
        if reason is None:
            raise
        raise StoredFileError(f"cannot {what}: {reason}") from error


_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp")
_ANSWERS = {
    401: "the hub does not know who asks: the token is missing, wrong or expired; log in with `hf auth login`",
    403: "the hub forbids it: your token may not do this; make one that may, and log in with `hf auth login`",
    404: "the hub has no such file or repository: check the name",
    429: "the hub has had too many requests: wait some minutes; what is there is kept",
}


def hub_problem(error: BaseException | None) -> str | None:
    """What the Hub or the network answered, and what to do about it; None if the error is none of theirs."""
    status, offline, unreached = None, False, None
    while error is not None:
        name, module = type(error).__name__, type(error).__module__.split(".")[0]
        if name == "GatedRepoError" or "gated dataset" in str(error):
            return "it is gated: ask for access on its page on the hub, then log in with `hf auth login`"
        if name == "RevisionNotFoundError":
            return "the hub has no such revision of it"
        if name in ("RepositoryNotFoundError", "DatasetNotFoundError"):
            return "the hub has no such repository, or it is private: check the name, or log in with `hf auth login`"
        if name == "HFValidationError":
            return f"{' '.join(str(error).split())[:200]}: give the name as OWNER/NAME"
        status = status or getattr(getattr(error, "response", None), "status_code", None)
        # hf_xet tells of an answer in words alone.
        if found := re.search(r"HTTP status \w+ error \((\d+)[^:]*: \S*/xet-", str(error)):
            if found[1] == "404":
                return "the hub does not speak Xet: set HF_HUB_DISABLE_XET=1, and it goes by plain HTTP"
            status = int(found[1])
        offline = offline or name in ("OfflineModeIsEnabled", "LocalEntryNotFoundError")
        if module in _NETWORK or isinstance(error, (ConnectionError, TimeoutError)):
            unreached = unreached or f"{name}: {' '.join(str(error).split())[:100]}"
        error = error.__cause__ or error.__context__
    if isinstance(status, int) and status >= 400:
        trouble = f"the hub is in trouble (HTTP {status}): try again later; what is there is kept"
        return trouble if status >= 500 else _ANSWERS.get(status, f"the hub answered HTTP {status}")
    if offline or unreached:
        why = f" ({unreached})" if unreached else ""
        return f"it is not in the cache, and the hub is out of reach{why}: run once with a network connection"
    return None
