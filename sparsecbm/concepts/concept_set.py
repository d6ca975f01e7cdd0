"""`ConceptSet`: the names a bottleneck speaks in, with what is known about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError, suggest, unknown
from sparsecbm._base.names import check_name, match_names, normalise_name, same_name_key
from sparsecbm._base.rows import as_numpy, unit_rows
from sparsecbm.concepts.cleaning import CleaningReport, by_reason, clean_names

if TYPE_CHECKING:
    from sparsecbm.concepts.filters import FilterReport

Relevance = np.ndarray | Sequence[Sequence[float]] | Mapping[str, Any]

PARTS = ("names", "groups", "relevance", "class_names", "provenance", "vectors")
_PUBLISHED, _PUBLISHED_VECTORS = "concepts.yaml", "concepts.safetensors"


class ConceptSet:
    """An immutable, ordered set of concept names.

    Names are normalised (Unicode NFC, single blanks) one for one; blank and repeated names are refused, so that rows of
    an embedding matrix made for the same list always fit. `ConceptSet.clean` drops them instead, and reports it.

    Parameters
    ----------
    names : sequence of str
        Concept names, unique whatever their case.
    groups : mapping of str to sequence of str, or sequence of str or None of length M, optional
        Names of each group, or the group of each name. A concept is in one group at most.
    relevance : array-like of shape (K, M), or mapping of class name to names (or to name: weight), optional
        How relevant each concept is for each class; finite and not negative.
    class_names : sequence of str of length K, optional
        Rows of `relevance`; the keys where it is a mapping.
    provenance : mapping or str, optional
        Where the concepts come from; JSON values.
    vectors : array-like of shape (M, d), optional
        Directions of the concepts, where they are not (only) what an encoder makes of their names: used in its place.
        `names` may then be None: "unnamed 0", "unnamed 1", ...

    Attributes
    ----------
    names : tuple of str, length M
    groups : tuple of str or None, length M, or None
    relevance : read-only ndarray of float32, shape (K, M), or None
    class_names : tuple of str or None
    provenance : dict
    vectors : read-only ndarray of float32, shape (M, d), unit rows, or None
    report : CleaningReport
        What normalising changed.

    Raises
    ------
    InputError
        If there is no name, a name is blank, repeated or not text, or groups or relevance do not fit.

    Examples
    --------
    >>> concepts = ConceptSet(["red crown", "hooked bill"], groups={"crown": ["red crown"], "bill": ["hooked bill"]})
    >>> len(concepts), concepts.groups
    (2, ('crown', 'bill'))
    """

    __slots__ = ("_index", "_provenance", "class_names", "groups", "names", "relevance", "report", "vectors")

    names: tuple[str, ...]
    groups: tuple[str | None, ...] | None
    relevance: np.ndarray | None
    class_names: tuple[str, ...] | None
    vectors: np.ndarray | None
    report: CleaningReport
    _index: dict[str, int]
    _provenance: str

    def __init__(
        self,
        names: Iterable[str] | None,
        *,
        groups: Mapping[str, Sequence[str]] | Sequence[str | None] | None = None,
        relevance: Relevance | None = None,
        class_names: Sequence[str] | None = None,
        provenance: Mapping[str, Any] | str | None = None,
        vectors: Any = None,
    ) -> None:
        directions = None if vectors is None else _vectors(vectors)
        if names is None:
            names = [f"unnamed {j}" for j in range(0 if directions is None else len(directions))]
        if isinstance(names, str):
            raise InputError(f"concept names {names!r} are one text: expected a list of texts")
        given = list(names)
        clean, report = clean_names(given)
        if report.blank or report.duplicates:
            raise InputError(
                f"{len(report.duplicates) + report.blank} of {len(given)} concept names are blank or repeated "
                f"({report.lines[len(report.rewritten)]}): repair the list, or use ConceptSet.clean(names)"
            )
        if not clean:
            raise InputError("a concept set needs at least one name, got none")
        index = {same_name_key(name): j for j, name in enumerate(clean)}
        if directions is not None:
            _check_length("vectors", len(directions), len(clean))
        self._set("vectors", directions)
        self._set("names", tuple(clean))
        self._set("_index", index)
        self._set("report", report)
        self._set("groups", None if groups is None else _groups(groups, self))
        matrix, rows = (None, None) if relevance is None else _relevance(relevance, class_names, self)
        self._set("relevance", matrix)
        self._set("class_names", rows)
        self._set("_provenance", _provenance(provenance))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a ConceptSet cannot be changed: make a new one with another {name}")

    @classmethod
    def clean(cls, names: Iterable[str], **options: Any) -> ConceptSet:
        """Build a set from raw names: normalise, drop blanks and repetitions; see ``.report`` for what changed.

        Parameters
        ----------
        names : iterable of str
            Raw names.
        **options
            As for `ConceptSet`; a `relevance` array, a `groups` sequence and `vectors` have one entry for every raw
            name.
        """
        given = list(names)
        clean, report = clean_names(given)
        if not clean:
            raise InputError(f"no concept names are left of {len(given)} given: every one is blank")
        kept = list(report.kept)
        groups, relevance = options.get("groups"), options.get("relevance")
        if groups is not None and not isinstance(groups, Mapping):
            _check_length("groups", len(groups), len(given))
            options["groups"] = [groups[i] for i in kept]
        if relevance is not None and not isinstance(relevance, Mapping):
            matrix = np.asarray(relevance)
            _check_length("columns of relevance", matrix.shape[-1] if matrix.ndim else 0, len(given))
            options["relevance"] = matrix[..., kept]
        if options.get("vectors") is not None:
            _check_length("vectors", len(options["vectors"]), len(given))
            options["vectors"] = np.asarray(options["vectors"])[kept]
        concepts = cls(clean, **options)
        concepts._set("report", report)
        return concepts

    @classmethod
    def from_file(cls, path: str | Path) -> ConceptSet:
        """Read a ``.txt``, ``.json``, ``.yaml`` or ``.safetensors`` file; see `sparsecbm.concepts.files`.

        Raises
        ------
        InputError
            If the file is missing, empty, of another type or encoding, or not in the format.
        """
        from sparsecbm.concepts.files import named, read_concepts

        parts = read_concepts(path)
        with named(path):
            return cls.clean(**parts)

    def save(self, path: str | Path) -> None:
        """Write a file that `from_file` reads back equal.

        ``.txt`` holds names and provenance, ``.json`` and ``.yaml`` all but vectors, ``.safetensors`` everything.

        Raises
        ------
        InputError
            If the format cannot hold what the set has; nothing is dropped silently.
        """
        from sparsecbm.concepts.files import write_concepts

        write_concepts(path, {part: getattr(self, part) for part in PARTS})

    def save_pretrained(self, folder: str | Path, *, license: str | None = None, name: str = "a-user/concepts") -> None:
        """Write ``concepts.yaml``, without the places of this machine, and a card beside it, as `push_to_hub` uploads.

        Parameters
        ----------
        folder : str or Path
        license : str, optional
            Identifier of the Hub.
        name : str
            Of the repository, for the card.
        """
        from sparsecbm._base.files import write_text
        from sparsecbm._base.hub import make_card, published, shown_names

        known = published(self.provenance)
        short = {key: value for key, value in known.items() if key != "dropped"}  # the file names those
        parts = {part: getattr(self, part) for part in PARTS[1:]}
        file = Path(folder) / (_PUBLISHED if self.vectors is None else _PUBLISHED_VECTORS)
        ConceptSet(self.names, **{**parts, "provenance": known}).save(file)
        usage = f'from sparsecbm import ConceptSet\nconcepts = ConceptSet.from_pretrained("{name}")'
        sections = {
            "": f"{len(self):,} concepts for [sparsecbm](https://arxiv.org/abs/2404.03323).",
            "Concepts": shown_names(self.names),
            "Classes they were made for": shown_names(self.class_names or ()),
            "Where they come from": f"```json\n{json.dumps(short, indent=2, ensure_ascii=False)}\n```" if known else "",
            "How to use them": f"```python\n{usage}\n```",
        }
        front = {"license": license, "tags": ["sparsecbm", "concepts", "interpretability"]}
        write_text(Path(folder) / "README.md", make_card(front, name.rsplit("/", 1)[-1], sections))

    def push_to_hub(self, repo_id: str, *, license: str | None = None, **options: Any) -> str:
        """Upload as a data set of the Hub; returns the commit's address. Options: see `sparsecbm._base.hub.upload`."""
        from sparsecbm._base.hub import upload

        def save(folder: Path) -> None:
            self.save_pretrained(folder, license=license, name=repo_id)

        return upload(save, repo_id, repo_type="dataset", **options)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> ConceptSet:
        """Read from a folder, or a data set of the Hub, that `save_pretrained` or `push_to_hub` wrote."""
        from sparsecbm._base.hub import download

        folder = download(name, [_PUBLISHED, _PUBLISHED_VECTORS], any_of=True, repo_type="dataset", **options)
        held = folder / _PUBLISHED_VECTORS
        return cls.from_file(held if held.is_file() else folder / _PUBLISHED)

    def filter(self, **options: Any) -> tuple[ConceptSet, FilterReport]:
        """Drop concepts that explain nothing; see `sparsecbm.concepts.filters.filter_concepts` for the options."""
        from sparsecbm.concepts.filters import filter_concepts

        report = filter_concepts(self.names, **options)
        return self.select(report.kept), report

    def select(self, indices: Sequence[int] | np.ndarray) -> ConceptSet:
        """Keep the concepts at `indices` (or where a boolean mask is true), in that order."""
        picked = np.asarray(indices)
        if picked.dtype == bool:
            _check_length("entries in the mask", len(picked), len(self))
            picked = np.flatnonzero(picked)
        chosen = [int(j) for j in picked]
        return ConceptSet(
            [self.names[j] for j in chosen],
            groups=None if self.groups is None else [self.groups[j] for j in chosen],
            relevance=None if self.relevance is None else self.relevance[:, chosen],
            class_names=self.class_names,
            provenance=self.provenance,
            vectors=None if self.vectors is None else self.vectors[chosen],
        )

    def noted(self, dropped: Iterable[tuple[str, str]] = (), /, **notes: Any) -> ConceptSet:
        """Return the set with more provenance; `dropped` are names and reasons, kept by reason with earlier ones."""
        known = self.provenance | notes
        earlier = known.get("dropped")
        lists = earlier.items() if isinstance(earlier, dict) else ()
        pairs = [(str(name), why) for why, names in lists if isinstance(names, list) for name in names]
        if found := by_reason([*pairs, *dropped]):
            known["dropped"] = found
        parts = {part: getattr(self, part) for part in PARTS[1:]}
        return ConceptSet(self.names, **{**parts, "provenance": known})

    def index(self, name: str) -> int:
        """Position of a name, whatever its case.

        Raises
        ------
        InputError
            If it is not in the set; the nearest name is suggested.
        """
        if name not in self:
            raise InputError(f"no concept is named {name!r}{suggest(str(name), self.names)}")
        return self._index[same_name_key(name)]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the concepts come from (a copy)."""
        return json.loads(self._provenance)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and same_name_key(name) in self._index

    def _state(self) -> tuple[object, ...]:
        arrays = [None if held is None else (held.shape, held.tobytes()) for held in (self.relevance, self.vectors)]
        return self.names, self.groups, self.class_names, *arrays, self._provenance

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConceptSet) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash(self._state())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, tuple(getattr(self, part) for part in PARTS)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.names[:3])) + (", ..." if len(self) > 3 else "")
        return f"<ConceptSet of {len(self)}: {shown}>"


def _rebuild(names: Any, *parts: Any) -> ConceptSet:
    return ConceptSet(names, **dict(zip(PARTS[1:], parts)))


def _vectors(vectors: Any) -> np.ndarray:
    rows = np.asarray(as_numpy(vectors))
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "fiu":
        raise InputError(f"vectors have shape {rows.shape}: expected a matrix of numbers, one row a concept")
    rows = unit_rows(rows, "vectors", tolerance=1e-6, dtype=np.float32).copy()
    rows.flags.writeable = False
    return rows


def _check_length(what: str, got: int, expected: int) -> None:
    if got != expected:
        raise InputError(f"{got} {what} for {expected} concept names: expected one each")


def _groups(groups: Mapping[str, Sequence[str]] | Sequence[str | None], concepts: ConceptSet) -> tuple[str | None, ...]:
    if not isinstance(groups, Mapping):
        if isinstance(groups, str):
            raise InputError(f"groups {groups!r} are one text: expected one group a concept, or group: names")
        _check_length("groups", len(groups), len(concepts))
        return tuple(None if group is None else normalise_name(check_name(group, "a group")) for group in groups)
    of: list[str | None] = [None] * len(concepts)
    for group, names in groups.items():
        label = normalise_name(check_name(group, "a group"))
        for name in _name_list(names, f"group {label!r}"):
            j = _position(name, concepts, f"group {label!r}")
            if of[j] not in (None, label):
                raise InputError(f"concept {name!r} is in two groups, {of[j]!r} and {label!r}: keep it in one")
            of[j] = label
    return tuple(of)


def _relevance(
    relevance: Relevance, class_names: Sequence[str] | None, concepts: ConceptSet
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    rows: tuple[str, ...] | None
    if isinstance(relevance, Mapping):
        rows = tuple(check_name(name, "a class name") for name in relevance)
        held = list(relevance.values())
        if class_names is not None:
            match = match_names(class_names, rows)
            if odd := (*match.missing, *match.unused):
                raise InputError(
                    f"class {odd[0]!r} is in only one of class_names and relevance: name the same classes in both"
                )
            rows = tuple(class_names)
            held = [held[k] for k in match.positions if k is not None]
        matrix = np.zeros((len(rows), len(concepts)), dtype=np.float32)
        for k, (row, entries) in enumerate(zip(rows, held)):
            where = f"relevance of class {row!r}"
            weights = entries if isinstance(entries, Mapping) else dict.fromkeys(_name_list(entries, where), 1.0)
            for name, weight in weights.items():
                matrix[k, _position(name, concepts, where)] = _weight(weight, f"{where} to {name!r}")
    else:
        try:
            matrix = np.array(relevance, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"relevance is not a matrix of numbers ({error}): expected shape (classes, concepts)"
            ) from error
        if matrix.ndim != 2 or matrix.shape[1] != len(concepts):
            raise InputError(f"relevance has shape {matrix.shape}: expected (classes, {len(concepts)})")
        rows = None if class_names is None else tuple(check_name(name, "a class name") for name in class_names)
        if rows is not None and len(rows) != len(matrix):
            raise InputError(f"{len(rows)} class names for {len(matrix)} rows of relevance: expected one each")
    if rows is not None and len(set(rows)) < len(rows):
        raise InputError(f"class names of relevance repeat: {len(rows)} given, {len(set(rows))} different")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        k, j = np.argwhere(~np.isfinite(matrix) | (matrix < 0))[0]
        raise InputError(f"relevance[{k}, {j}] is {matrix[k, j]}: expected a finite number that is not negative")
    matrix.setflags(write=False)
    return matrix, rows


def _weight(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise InputError(f"{where} is {value!r}: expected a number")
    return float(value)


def _name_list(names: object, where: str) -> list[Any]:
    if isinstance(names, str) or not isinstance(names, (Sequence, tuple, set, frozenset)):
        raise InputError(f"{where} is {names!r}: expected a list of concept names")
    return list(names)


def _position(name: object, concepts: ConceptSet, where: str) -> int:
    if name not in concepts:
        raise unknown_concept(name, concepts.names, where)
    return concepts.index(str(name))


def unknown_concept(name: object, names: Sequence[str], where: str) -> InputError:
    """Build the error for a name in groups or relevance that is no concept."""
    if len(names) <= 12:
        return unknown(f"concept in {where}", name, names)
    return InputError(f"{where} has {name!r}, which is not among the {len(names)} concepts{suggest(str(name), names)}")


def _provenance(provenance: Mapping[str, Any] | str | None) -> str:
    if isinstance(provenance, str):
        provenance = {"note": provenance}
    try:
        if provenance is not None and not all(isinstance(key, str) for key in provenance):
            raise TypeError("keys must be text")
        return json.dumps(dict(provenance or {}), allow_nan=False)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"provenance {provenance!r} cannot be stored ({error}): expected texts, numbers and lists"
        ) from error
