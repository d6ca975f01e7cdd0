"""``hub:REPO[:CONFIG]`` and ``parquet:GLOB``: tables with a column of pictures, read through `datasets`."""

from __future__ import annotations

import contextlib
import glob as globbing
import itertools
import re
import sys
import textwrap
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sparsecbm._base.errors import InputError, StoredFileError, unknown
from sparsecbm._base.hub import hub_problem
from sparsecbm._base.names import name_list
from sparsecbm._base.untrusted import check_packed, open_parquet
from sparsecbm.data.attributes import column_attributes
from sparsecbm.data.base import Catalogue, EncodedImages, LoadOptions
from sparsecbm.data.columns import class_list, image_column, label_column
from sparsecbm.data.decode import MAX_PICTURE_BYTES, UndecodableError, read_picture
from sparsecbm.data.labels import LabelColumn, gather_labels
from sparsecbm.data.select import keep_labels, select
from sparsecbm.data.splits import SPLITS, canonical_split

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_BATCH = 256


def load_hub(rest: str, options: LoadOptions, spec: str) -> EncodedImages:
    """Load a data set of the Hugging Face Hub, or a local folder in the layout of a hub repository."""
    head, colon, tail = rest.rpartition(":")
    # A folder's name may hold a colon, a repository's cannot.
    repo, config = (rest, None) if not colon or Path(rest).expanduser().is_dir() else (head, tail)
    local = Path(repo).expanduser()
    loaded = _load_dataset(str(local) if local.is_dir() else repo, config, spec)
    schemas = {f"split {name!r}": table.features.arrow_schema for name, table in loaded.items()}
    image, label = _columns(schemas, options, spec)
    columns = []
    for (where, schema), table in zip(schemas.items(), loaded.values()):
        if label is not None:
            values = table.select_columns(label).with_format("arrow")[:][label]
            columns.append(LabelColumn(values, where, class_list(schema, label)))
    if label is not None and local.is_dir():
        _refuse_other_numbers(local, label, columns, spec)
    parts = {name: _pictures(table, image) for name, table in loaded.items()}
    catalogue = TableCatalogue(parts, columns, spec, _hub_roots(local))
    for option, names in _label_columns(schemas, options, spec).items():
        held = {n: [table.select_columns(n).with_format("arrow")[:][n] for table in loaded.values()] for n in names}
        keep_labels(catalogue, option, column_attributes(held, repr(spec)))
    return select(catalogue, options, spec)


def _refuse_other_numbers(folder: Path, label: str, columns: Sequence[LabelColumn], spec: str) -> None:
    """Refuse files that number their classes otherwise: `datasets` takes the numbers of the first for all."""
    for file in sorted(folder.rglob("*.parquet")):
        with open_parquet(file) as table:
            names = class_list(table.schema_arrow, label)
        if names is not None and any(list(column.class_names or names) != names for column in columns):
            raise InputError(
                f"{str(file)!r} lists its classes in another way than the rest of {spec!r}: "
                f"give the files as parquet:{folder}, which matches classes by name"
            )


def load_parquet(pattern: str, options: LoadOptions, spec: str) -> EncodedImages:
    """Load parquet files; splits are told by names such as ``train-00000-of-00002.parquet`` or ``train/0.parquet``."""
    pattern = str(Path(pattern).expanduser())
    if Path(pattern).is_dir():
        files = sorted(str(file) for file in Path(pattern).rglob("*.parquet") if file.is_file())
    elif Path(pattern).is_file():
        files = [pattern]
    else:  # pathlib's glob takes no absolute pattern
        files = sorted(file for file in globbing.glob(pattern, recursive=True) if Path(file).is_file())  # noqa: PTH207
    if not files:
        raise InputError(f"no parquet file matches {pattern!r}: give a folder, file or glob such as 'data/*.parquet'")
    by_split: dict[str, list[str]] = {}
    for file in files:
        by_split.setdefault(_split_of(Path(file)), []).append(file)
    if "" in by_split:
        if len(by_split) > 1:
            raise InputError(
                f"{spec!r}: cannot tell the split of {name_list(by_split[''])} beside "
                f"{name_list([name for name in by_split if name])}: name them like 'train-00000-of-00001.parquet'"
            )
        by_split["all"] = by_split.pop("")
    # The first file decides which columns are read, so training comes first.
    order = sorted(by_split, key=lambda name: (canonical_split(name) != "train", name))
    by_split = {name: by_split[name] for name in order}
    schemas, columns = {}, []
    for file in (file for inside in by_split.values() for file in inside):
        with open_parquet(file) as table:  # refuses what `datasets` would unfold to gigabytes
            schemas[file] = table.schema_arrow
    image, label = _columns(schemas, options, spec)
    more = _label_columns(schemas, options, spec)
    held: dict[str, list[pa.ChunkedArray]] = {name: [] for names in more.values() for name in names}
    for file, schema in schemas.items():
        wanted = [*held, *([] if label is None else [label])]
        if not wanted:
            continue
        with open_parquet(file) as table:
            read = table.read(columns=wanted)
        if label is not None:
            columns.append(LabelColumn(read[label], f"{Path(file).name!r}", class_list(schema, label)))
        for name, parts in held.items():
            parts.append(read[name])
    roots = tuple(sorted({Path(file).parent.resolve() for file in files}))
    catalogue = TableCatalogue(_read_parquet(by_split, image, spec), columns, spec, roots)
    for option, names in more.items():
        keep_labels(catalogue, option, column_attributes({name: held[name] for name in names}, repr(spec)))
    return select(catalogue, options, spec)


def _columns(schemas: Mapping[str, pa.Schema], options: LoadOptions, spec: str) -> tuple[str, str | None]:
    """Columns of pictures and labels, which every part must have."""
    first, schema = next(iter(schemas.items()))
    image = image_column(schema, options.image_column, spec)
    label = None if options.class_labels else label_column(schema, options.label_column, image, spec)
    for where, other in schemas.items():
        for column in filter(None, (image, label)):
            if column not in other.names:
                raise InputError(f"{spec!r}: {where} has no column {column!r}, which {first} has")
    return image, label


def _label_columns(schemas: Mapping[str, pa.Schema], options: LoadOptions, spec: str) -> dict[str, list[str]]:
    """Columns of concept labels and of many classes, which every part must have; none where a file holds them."""
    made = {}
    for option in ("concept_labels", "class_labels"):
        given = getattr(options, option)
        wanted = [given] if isinstance(given, str) else list(given or ())
        if not wanted or (isinstance(given, str) and given.lower().endswith(".csv")):
            continue
        for name in wanted:
            for schema in schemas.values():
                if name not in schema.names:
                    raise unknown(f"{option} of {spec!r}", name, schema.names)
        made[option] = wanted
    return made


def _split_of(file: Path) -> str:
    """Split a parquet file belongs to, by the hub's naming; empty if its name does not say."""
    if match := re.fullmatch(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?", file.stem):
        return match[1]
    for word in (re.split(r"[-_.\s]", file.stem)[0], file.parent.name):
        if canonical_split(word) in SPLITS:
            return word
    return ""


def _read_parquet(by_split: Mapping[str, list[str]], image: str, spec: str) -> dict[str, Dataset]:
    """Column of pictures of each split, kept on disk by `datasets`."""
    import datasets
    import pyarrow as pa

    # The names of the user's files need not be valid split names for `datasets`.
    keys = {name if canonical_split(name) in SPLITS else f"part{i}": name for i, name in enumerate(by_split)}
    # A "**" or "[" in a folder's name is no pattern here: the files are listed already.
    files = {key: [globbing.escape(file) for file in by_split[name]] for key, name in keys.items()}
    try:
        with _quiet():
            cache_dir = _cache_of(file for names in by_split.values() for file in names)
            loaded = datasets.load_dataset(
                "parquet",
                data_files=files,
                columns=[image],
                features=datasets.Features({image: datasets.Image(decode=False)}),
                cache_dir=cache_dir,
            )
    except (datasets.exceptions.DatasetsError, pa.ArrowException, ValueError, OSError) as error:
        raise StoredFileError(f"cannot read {spec!r} as parquet: {_one_line(_cause(error))}") from error
    return {name: _pictures(loaded[key], image) for key, name in keys.items()}


def _cache_of(files: Iterable[str | Path]) -> str:
    """Cache of `datasets` for tables of this content alone: it would take a file for unchanged by its time stamp."""
    import datasets
    import xxhash

    Image.init()
    digest = xxhash.xxh3_128()
    for file in sorted(map(Path, files)):
        if file.is_file() and file.suffix.lower() not in Image.EXTENSION:  # pictures are read when they are asked for
            digest.update(f"{file}|{file.stat().st_size}\n".encode())
            with file.open("rb") as handle:
                while block := handle.read(1 << 20):
                    digest.update(block)
    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"content-{digest.hexdigest()}")


def _load_dataset(repo: str, config: str | None, spec: str) -> dict[str, Dataset]:
    import datasets

    # What lies on the hub has a revision; files here have a time stamp alone.
    cache_dir = _cache_of(Path(repo).rglob("*")) if Path(repo).is_dir() else None
    try:
        with _quiet():
            builder = _builder(repo, config, cache_dir)
            builder.download_and_prepare(dl_manager=_checked_downloads(builder))
            loaded = builder.as_dataset()
    except InputError:
        raise
    except Exception as error:
        reason = hub_problem(error)
        if reason is not None:
            raise InputError(
                f"cannot load {spec!r}: {reason}, or download the data set elsewhere and give its folder as hub:FOLDER "
                "or its files as parquet:GLOB"
            ) from error
        if not isinstance(error, (datasets.exceptions.DatasetsError, ValueError, RuntimeError, OSError)):
            raise
        said = _one_line(_cause(error) if isinstance(error, datasets.exceptions.DatasetsError) else error)
        if "Invalid string class label" in said:  # datasets 5.2 takes the archive's own folder for the class
            said = "its classes are folders in an archive, which `datasets` cannot read: unpack it, give folder:PATH"
        raise InputError(f"cannot load {spec!r}: {said}") from error
    return dict(loaded)


def _builder(repo: str, config: str | None, cache_dir: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset_builder(repo, config, cache_dir=cache_dir)
    except ValueError as error:
        # Offline, with several configurations in the cache, it asks which; online it takes the default one.
        if config is None and "configurations in the cache" in str(error):
            return datasets.load_dataset_builder(repo, "default", cache_dir=cache_dir)
        raise


def _checked_downloads(builder: Any) -> Any:
    """Return a download manager that refuses what `datasets` would unfold to gigabytes, before it does."""
    from datasets import DownloadConfig, DownloadManager

    class Checked(DownloadManager):
        def download(self, url_or_urls: Any) -> Any:
            before = set(self.downloaded_paths)
            found = super().download(url_or_urls)
            for url, path in self.downloaded_paths.items():
                if url not in before and Path(path).is_file():
                    check_packed(Path(path), name=str(url).rsplit("/", 1)[-1])
            return found

    held = DownloadConfig(
        cache_dir=builder._cache_downloaded_dir,
        use_etag=False,
        token=builder.token,
        storage_options=builder.storage_options,
    )
    return Checked(
        dataset_name=builder.dataset_name,
        download_config=held,
        data_dir=builder.config.data_dir,
        base_path=builder.base_path,
        record_checksums=False,
    )


def _cause(error: BaseException) -> BaseException:
    """Innermost cause: the outer ones only say that generating the data set failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _one_line(error: BaseException) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence `datasets`: it logs each failure beside raising it, and draws its bars into files too."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bar()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bar()


class TableCatalogue(Catalogue):
    """Tables of one data set, one a split, kept on disk as Arrow and never decoded by `datasets`.

    Cells that hold the name of a file and not its bytes are read from `roots` alone.
    """

    def __init__(
        self, parts: Mapping[str, Dataset], columns: Sequence[LabelColumn], spec: str, roots: Sequence[Path] = ()
    ) -> None:
        self._roots = tuple(roots)
        self.what = repr(spec)
        self.official = {}
        self._parts: list[tuple[int, str, Dataset]] = []
        start = 0
        for name, table in parts.items():
            self._parts.append((start, name, table))
            self.official[name] = range(start, start + len(table))
            start += len(table)
        self.labels, self.class_names = None, ()
        if columns:
            labels = gather_labels(columns, self.what, self.name)
            if len(labels.numbers) != start:
                raise StoredFileError(f"{spec!r} has {start} pictures and {len(labels.numbers)} labels: it has changed")
            self.labels, self.class_names, self.notes = labels.numbers, labels.class_names, labels.notes

    def _find(self, row: int) -> tuple[int, str, Dataset]:
        for start, name, table in reversed(self._parts):
            if row >= start:
                return row - start, name, table
        raise IndexError(row)

    def name(self, row: int) -> str:
        index, split, _ = self._find(row)
        return f"{split}/{index}"

    def read(self, row: int) -> bytes | None:
        index, _, table = self._find(row)
        return _bytes(table[index]["image"], self._roots)

    def read_many(self, rows: np.ndarray) -> Iterator[bytes | None]:
        for begin in range(0, len(rows), _BATCH):
            batch = [self._find(int(row)) for row in rows[begin : begin + _BATCH]]
            for _, same in itertools.groupby(batch, key=lambda entry: entry[1]):
                indices, _, tables = zip(*same)
                for cell in tables[0][list(indices)]["image"]:
                    yield _bytes(cell, self._roots)


def _hub_roots(local: Path) -> tuple[Path, ...]:
    """Where the files of a hub data set lie: its folder, or what was downloaded and unpacked of it."""
    import datasets
    from huggingface_hub import constants

    caches = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    folders = (local, *caches) if local.is_dir() else caches
    return tuple(Path(folder).resolve() for folder in folders)


def _bytes(value: dict[str, Any] | None, roots: Sequence[Path]) -> bytes | None:
    """Encoded picture of one cell: its bytes, else the file it names."""
    if value is None or (value["bytes"] is None and value["path"] is None):
        return None
    if value["bytes"] is not None:
        return value["bytes"]
    path = value["path"]
    inner, archived, outer = path.partition("::")
    # The table may come from a stranger: it must not name a private file, nor make this machine fetch an address.
    if (archived and not inner.startswith("zip://")) or "://" in (outer or path):
        raise UndecodableError(f"its file {path!r} is an address: expected bytes, or a file beside the table")
    # A relative name is one beside the table, wherever the program was started.
    found = (Path(root, outer or path).resolve() for root in roots)
    real = next((file for root, file in zip(roots, found) if file.is_relative_to(root) and file.exists()), None)
    if real is None:
        raise UndecodableError(
            f"its file {path!r} is missing, or lies outside the data set's folder: put it beside the table"
        )
    if not archived:
        return read_picture(real)
    try:
        with zipfile.ZipFile(real) as archive, archive.open(inner.removeprefix("zip://")) as handle:
            data = handle.read(MAX_PICTURE_BYTES + 1)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UndecodableError(f"its file {path!r} cannot be read ({error})") from error
    if len(data) > MAX_PICTURE_BYTES:
        raise UndecodableError(f"its file {path!r} is larger than {MAX_PICTURE_BYTES // 2**20} MiB")
    return data


def _pictures(table: Dataset, column: str) -> Dataset:
    """The column of pictures alone, as bytes and path, under the name ``image``."""
    import datasets

    alone = table.select_columns(column)
    if column != "image":
        alone = alone.rename_column(column, "image")
    # Raw storage {bytes, path} reads the same whether or not the table says that it holds pictures.
    return alone.cast_column("image", datasets.Image(decode=False))
