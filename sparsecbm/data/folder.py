"""``folder:PATH``: one folder a class, optionally below one folder a split.

The listing is ours and not `datasets`' imagefolder, which drops files of unknown extension without a word, gives up on
labels where folder depths differ, and takes a class called "train" or "test" for a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.names import clean_name, group_names, name_list, same_name_key
from sparsecbm.data.attributes import ATTRIBUTES
from sparsecbm.data.base import EncodedImages, LoadOptions
from sparsecbm.data.files import FileCatalogue, PictureFolder, read_folder
from sparsecbm.data.select import select
from sparsecbm.data.splits import SPLITS, canonical_split

# Folders beside split folders that nobody means for classes.
_NO_CLASSES = {"annotations", "extra", "images", "labels", "masks", "metadata", "unlabeled", "unlabelled", "unsup"}


def load(path: str, options: LoadOptions, spec: str) -> EncodedImages:
    """Load a folder of pictures.

    Layouts: ``PATH/CLASS/picture``, ``PATH/SPLIT/CLASS/picture`` (when every folder of pictures in PATH is named like a
    split) or ``PATH/picture`` (no labels). Folders inside a class folder belong to the class. What is a picture:
    `sparsecbm.data.files`.
    """
    for column in ("image_column", "label_column"):
        if getattr(options, column) is not None:
            raise InputError(f"{column}={getattr(options, column)!r} does not apply to {spec!r}: no columns there")
    root = Path(path).expanduser()
    if options.concept_labels is None and (root / ATTRIBUTES).is_file():
        options = replace(options, concept_labels=str(root / ATTRIBUTES))
    return select(FolderCatalogue(root, spec), options, spec)


class FolderCatalogue(FileCatalogue):
    """The files of a folder, sorted by name."""

    def __init__(self, root: Path, spec: str) -> None:
        if not root.is_dir():
            problem = "is a file, not a folder" if root.exists() else "does not exist"
            raise InputError(f"folder {str(root)!r} {problem}: expected one with a sub-folder of pictures a class")
        super().__init__((), repr(spec), root)
        tree = read_folder(root)
        tree.left_out = [path for path in tree.left_out if path != root / ATTRIBUTES]
        splits = self._split_folders(tree)
        self.official = {}
        tops = list(splits.values())
        self._refuse_depth(tops, tree)
        classes = [(top, folder) for top in tops for folder in top.filled()]
        # Training comes first: its spelling of a class is the one that is shown.
        classes.sort(key=lambda pair: canonical_split(pair[0].name) != "train")
        names = [clean_name(folder.name, f"a folder of {self.what}") for _, folder in classes]
        grouped = group_names(names)
        self.class_names = tuple(sorted(grouped.names))
        number = {name: k for k, name in enumerate(self.class_names)}
        label = {id(folder): number[grouped.names[i]] for (_, folder), i in zip(classes, grouped.positions)}
        labels: list[int] = []
        for name, top in splits.items():
            start = len(self.files)
            # Pictures straight in a split's folder have no label.
            for folder in top.filled() or [top]:
                found = folder.all_pictures()
                self.files += [file.relative_to(root).as_posix() for file in found]
                labels += [label.get(id(folder), -1)] * len(found)
            self.official[name] = range(start, len(self.files))
        if not self.files:
            example = str(root / "cat" / "1.jpg")
            left = f" ({note})" if (note := tree.note(str(root))) else ""
            raise InputError(f"{spec!r} has no pictures: expected files in class folders, such as {example!r}{left}")
        self.labels = np.asarray(labels, dtype=np.int64) if classes else None
        merged = f"{self.what}: {grouped.line('class folders')}" if grouped.merged else ""
        notes = (merged, self._strays({tree, *tops}), self._empty(tree, tops), tree.note(self.what))
        self.notes = tuple(filter(None, notes))

    def _split_folders(self, tree: PictureFolder) -> dict[str, PictureFolder]:
        """Folder of each split, by its name; the whole as ``all`` where the folders are classes."""
        named = [folder for folder in tree.folders if canonical_split(folder.name) in SPLITS]
        splits = [folder for folder in named if folder.any_pictures()]
        others = [folder for folder in tree.filled() if folder not in named]
        if splits and not others:
            return {folder.name: folder for folder in named}
        # "train" alone, with pictures straight in it and other classes beside it, is a vehicle.
        vehicle = [canonical_split(folder.name) for folder in splits] == ["train"] and not splits[0].filled()
        if splits and not (vehicle and not any(same_name_key(folder.name) in _NO_CLASSES for folder in others)):
            raise InputError(
                f"{self.what} has {name_list([folder.name for folder in splits])}, named like splits, beside "
                f"{name_list([folder.name for folder in others])}: move either away, so that all folders are splits or "
                "all are classes"
            )
        return {"all": tree}

    def _refuse_depth(self, tops: Sequence[PictureFolder], tree: PictureFolder) -> None:
        """Refuse class folders that are a level too high: they hold the splits, or all the classes."""
        for top in tops:
            for folder in top.filled():
                inside = folder
                while not inside.pictures and len(inside.filled()) == 1:
                    inside = inside.filled()[0]
                names = [inner.name for inner in inside.filled()]
                splits = {canonical_split(name) for name in names} & set(SPLITS)
                alone = {other.name for each in tops for other in each.filled()} == {folder.name}
                same = canonical_split(folder.name) in SPLITS and len(top.filled()) == 1 and top is not tree
                within = inside is not folder and canonical_split(inside.name) in SPLITS
                if len(splits) > 1 or within or ((alone or same) and not inside.pictures):
                    where = inside.path.relative_to(tree.path).as_posix()
                    held = name_list(names) if names else "pictures"
                    right = inside.path.parent if within else inside.path
                    advice = f"give folder:{right}" if alone and top is tree else "move them one level up"
                    raise InputError(
                        f"{self.what}: one folder level too many, {where!r} holds {held}: expected CLASS/picture or "
                        f"SPLIT/CLASS/picture; {advice}"
                    )

    def _strays(self, folders: set[PictureFolder]) -> str:
        """Say which pictures lie beside class or split folders; refuse so many that the layout must be another."""
        strays = sorted(
            (folder.path / name).relative_to(self.root).as_posix()
            for folder in folders
            if folder.filled()
            for name in folder.pictures
        )
        if not strays:
            return ""
        if len(strays) > max(1, len(self.files) // 10):
            raise InputError(
                f"{self.what} has {name_list(strays)} beside the class folders: move them into one to give a class"
            )
        return f"{self.what}: left out {name_list(strays)}, beside the class folders"

    def _empty(self, tree: PictureFolder, tops: Sequence[PictureFolder]) -> str:
        """Say which folders beside classes or splits hold no picture anywhere."""
        filled = {folder.name for top in {tree, *tops} for folder in top.filled()}
        empty = sorted({folder.name for top in {tree, *tops} for folder in top.folders} - filled)
        return f"{self.what}: left out folders without pictures: {name_list(empty)}" if empty else ""
