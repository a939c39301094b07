"""Explainers that are given away: folders and repositories, with the interface of huggingface_hub.

A shared folder has `config.json` (plain values), `model.safetensors` (tensors), a model card with
a picture, and the numbers that lay beside the model. None of them holds code.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from dxai.explain import decomposition
from dxai.library import hub
from dxai.library.card import CARD, FIT, PICTURE, check_fields, model_card
from dxai.library.parts import Parts
from dxai.models.serialization import ModelError, share_decomposer
from dxai.models.shared_files import CONFIG, WEIGHTS, read_config
from dxai.paths import METRICS
from dxai.utils.files import atomic, require_folder

SEEN = "seen.json"
"""In an explainer's folder: the images it was fitted on, by the hash of their pixels."""
BESIDE = (FIT, METRICS, SEEN)
"""Files beside a model that are shared with it, if they are there."""
PREFIX = "hf://"
"""Before a repository, where a path could be meant."""
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Shareable(decomposition.DXAI):
    """An explainer that `save_pretrained` writes and `from_pretrained` reads."""

    stored: tuple[nn.Module, dict[str, Any]] | None = None
    """The classifier as a file holds it, and its info."""
    folder: Path | None = None
    """Where the explainer's file lies, and the numbers beside it."""

    def keep(self, stored: tuple[nn.Module, dict[str, Any]], folder: Path) -> Self:
        """Remember what `save_pretrained` needs, and return the explainer."""
        self.stored, self.folder = stored, folder
        return self

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        seed: int | None = None,
        latents: int | None = None,
        modules: str | Iterable[str] = (),
        device: str | torch.device = "auto",
    ) -> Self:
        """Load a shared explainer, without running code of its sender.

        Parameters
        ----------
        pretrained_model_name_or_path
            A folder that `save_pretrained` wrote, or a repository ``owner/name`` of the Hugging
            Face hub, which needs the extra `hub`.
        force_download, token, cache_dir, local_files_only, revision
            As of `huggingface_hub.ModelHubMixin.from_pretrained`.
        seed, latents : int, optional
            As of `DXAI`; default: those of the explainer that was saved.
        modules, device
            As of `load`: a classifier that is somebody's code is refused unless it is named.

        Raises
        ------
        ModelError
            In one line, for another folder, damaged files, or code that is not named.
        OSError, ValueError
            In one line, if the hub has no such repository, or huggingface_hub is not installed.
        """
        name = str(pretrained_model_name_or_path)
        folder = fetched(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        if not (folder / WEIGHTS).is_file():
            raise ModelError(f"{name}: has no {WEIGHTS}; DXAI.load opens a model.pt")
        explainer = cls.load(folder / WEIGHTS, 0, 1, modules, device)
        saved = read_config(folder).get("explainer")
        explainer.seed = _saved(saved, "seed", folder) if seed is None else seed
        explainer.latents = _saved(saved, "latents", folder) if latents is None else latents
        return explainer

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the explainer as a folder to give away.

        `config.json`, `model.safetensors`, the model card `README.md`, its picture, and the numbers
        beside the model (`fit.json`, `metrics.json`), with the hashes of the images that it was
        fitted on, if there are any. A card that exists is left as it is.

        Parameters
        ----------
        save_directory : path
            Is created if missing; other files in it are left alone.
        repo_id : str, optional
            ``owner/name`` on the hub, for the card and for `push_to_hub`; default: the folder's
            name.
        push_to_hub : bool
            Whether to upload it, too.
        model_card_kwargs : dict, optional
            For the card: `image` (whatever `explain` takes) to show, `data` (a text: what the
            explainer was fitted on) and `license` (one of the hub's identifiers, such as ``mit``).
            No image is shared that is not given.
        push_to_hub_kwargs
            As of `push_to_hub`.

        Returns
        -------
        str or None
            The address of the commit, if it was uploaded.

        Raises
        ------
        ValueError, OSError
            In one line, if the explainer was made by hand, the image is unreadable, or the folder
            takes no files.
        """
        folder, fields = Path(save_directory), dict(model_card_kwargs or {})
        self._write(folder, repo_id or folder.name, fields)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, model_card_kwargs=fields, **push_to_hub_kwargs
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push explainer using dxai.",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload the explainer to a repository of the Hugging Face hub, in one commit.

        Arguments are those of `huggingface_hub.ModelHubMixin.push_to_hub`, with the card's fields
        of `save_pretrained`. Needs the extra `hub`, and a token unless `hf auth login` was done.
        Returns the commit's address; `OSError` or `ValueError`, in one line, if the hub refuses.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self._write(folder, repo_id, dict(model_card_kwargs or {}))
            return hub.upload(folder, repo_id, commit_message, private, token, branch, create_pr)

    def _write(self, folder: Path, source: str, fields: Mapping[str, Any]) -> None:
        check_fields(fields)
        if self.stored is None:
            raise ValueError(
                "this explainer was put together by hand; save_pretrained takes one of dxai.fit, "
                "DXAI.load or DXAI.from_pretrained"
            )
        require_folder(folder)
        picture = None if fields.get("image") is None else self._picture(fields["image"])
        classifier, about = self.stored
        own = (self.decomposer, self.info, classifier, about)
        share_decomposer(folder, *own, seed=self.seed, latents=self.latents)
        if self.folder and self.folder.resolve() != folder.resolve():
            for name in BESIDE:
                _replace(folder / name, self.folder / name)
        if picture is not None:
            with atomic(folder / PICTURE) as temporary:
                temporary.write_bytes(picture)
        if not (folder / CARD).exists():
            with atomic(folder / CARD) as temporary:
                text = model_card(self.info, about, folder, source, fields)
                temporary.write_text(text, encoding="utf-8")

    def _picture(self, image: Any) -> bytes:
        """Draw one image's parts as `dxai explain` does, PNG."""
        found: Any = self.explain(image)
        if not isinstance(found, Parts):
            raise ValueError("image of model_card_kwargs: found several; the card shows one")
        return found._repr_png_()


def fetched(name: str, **where: Any) -> Path:
    """Return the folder of a shared explainer: a path, or ``owner/name``, which is downloaded.

    ``hf://`` may stand before the latter; `where` and errors are those of `hub.download`.
    """
    if Path(name).is_dir():
        return Path(name)
    repo_id = name.removeprefix(PREFIX)
    if not REPO_ID.fullmatch(repo_id):
        raise ModelError(f"{name}: no such folder, and no repository, which is owner/name")
    return hub.download(repo_id, BESIDE, **where)


def _saved(settings: Any, name: str, folder: Path) -> int:
    """Return a setting of the explainer that was saved, from anybody's file."""
    value = settings.get(name) if isinstance(settings, dict) else None
    if not isinstance(value, int) or value < 0:
        raise ModelError(
            f"{folder / CONFIG}: {name} is {value!r}; expected a whole number, 0 or more"
        )
    return value


def _replace(path: Path, source: Path) -> None:
    """Copy a file; where there is none, remove the copy, which told of another explainer."""
    if not source.is_file():
        path.unlink(missing_ok=True)
        return
    with atomic(path) as temporary:
        shutil.copyfile(source, temporary)
