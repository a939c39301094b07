"""The Hugging Face hub, which is contacted nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dxai.models.shared_files import CONFIG, WEIGHTS


def download(repo_id: str, files: tuple[str, ...] = (), **where: Any) -> Path:
    """Download an explainer's files, unless they are in the cache, and return their folder.

    Parameters
    ----------
    repo_id : str
        ``owner/name``.
    files : tuple of str
        Further files that are taken if they exist; nothing else of the repository is.
    where
        `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`, as of
        `huggingface_hub.snapshot_download`.

    Raises
    ------
    ValueError, OSError
        In one line, if huggingface_hub is not installed, or there is no such repository.
    """
    with _errors_of(repo_id):
        from huggingface_hub import snapshot_download

        names = [CONFIG, WEIGHTS, *files]
        return Path(snapshot_download(repo_id, allow_patterns=names, **where))


def upload(
    folder: Path,
    repo_id: str,
    commit_message: str,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Put the files of a folder into a repository in one commit, and return the commit's address.

    The repository is made if there is none. Arguments are those of `HfApi.upload_folder` in
    huggingface_hub, and errors those of `download`.
    """
    with _errors_of(repo_id):
        from huggingface_hub import HfApi

        hub = HfApi(token=token)
        repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = hub.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
        return str(commit.commit_url)


@contextlib.contextmanager
def _errors_of(repo_id: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise ValueError(
            f"{repo_id}: huggingface_hub is not installed; `pip install 'dxai[hub]'` installs it"
        ) from None
    except Exception as error:  # its own, and those of its HTTP client
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{repo_id}: the hub refuses, or is not reached: {reason}") from error
