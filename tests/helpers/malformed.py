"""A hundred malformed inputs of each kind, by name: what a loader must refuse in one clear line.

Each kind is a function that yields (name, file name, bytes); the first dozens are mistakes and attacks by name, the
rest cuts and damage at places spread over a good file, chosen where no reading of it is right. Nothing is drawn: the
same hundred every time.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

COUNT = 100

Case = tuple[str, str, bytes]


# -- configurations ----------------------------------------------------------------------------------------------------

_CONFIGS = {
    "a list": "- a\n- b\n",
    "a number": "3\n",
    "a text": "hello\n",
    "a tab for an indent": "model:\n\tloss: l1\n",
    "an unclosed bracket": "concepts: {names: [a, b}\n",
    "an unclosed quote": 'name: "x\n',
    "two documents": "name: a\n---\nname: b\n",
    "a colon too many": "name: a: b\n",
    "aliases": "concepts: {names: &a [x, y]}\nname: *a\n",
    "a billion laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
    "an anchor that holds itself": "a: &a [*a]\n",
    "a merge key": "a: &a {seed: 1}\n<<: *a\n",
    "code by a tag": "name: !!python/object/apply:os.system [echo]\n",
    "a module by a tag": "name: !!python/module:os\n",
    "a name by a tag": "name: !!python/name:os.system\n",
    "an unknown tag": "name: !what x\n",
    "an impossible date": "seed: 2001-13-45\n",
    "an impossible time": "seed: 2001-01-01 99:99:99\n",
    "no number for a number tag": "seed: !!int abc\n",
    "no float for a float tag": "seed: !!float abc\n",
    "no base64 for a binary tag": "name: !!binary é\n",
    "a number of 5,000 digits": "seed: " + "9" * 5000 + "\n",
    "a list as a key": "? [a, b]\n: c\n",
    "a mapping as a key": "? {a: b}\n: c\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "a key twice in a section": "model:\n  loss: l1\n  loss: none\n",
    "nested beyond any use": "a: " + "[" * 40 + "]" * 40 + "\n",
    "nested beyond the stack": "[" * 20_000,
    "a control character": "name: a\x07b\n",
    "a NUL": "name: a\0b\n",
    "a percent": "%YAML 9.9\n---\nname: a\n",
    "an unknown key": "modell: {}\n",
    "an unknown key in a section": "model: {los: l1}\n",
    "a section that is a number": "model: 3\n",
    "a section that is a list": "model: [l1]\n",
    "an unknown loss": "model: {loss: gumble}\n",
    "a negative count": "model: {batch_size: -1}\n",
    "a fraction for a count": "model: {batch_size: 1.5}\n",
    "a word for a number": "model: {learning_rate: fast}\n",
    "infinity": "model: {learning_rate: .inf}\n",
    "not a number": "model: {head_l2: .nan}\n",
    "a negative seed": "seed: -1\n",
    "a seed beyond 32 bits": "seed: 4294967296\n",
    "a list for a name": "name: [a]\n",
    "an empty name": "name: ''\n",
    "a temperature too many": "model: {temperature: [1, 0.5, 0.1]}\n",
    "a word for a temperature": "model: {temperature: cold}\n",
    "an alignment above one": "model: {min_alignment: 1.5}\n",
    "two sources of concepts": "concepts: {names: [a], file: b.txt}\n",
    "a number among concepts": "concepts: {names: [[a]]}\n",
    "an unknown cache": "encoder: {cache: disc}\n",
    "an unknown split": "images: {splits: {trian: train}}\n",
    "zero pictures": "images: {max_train: 0}\n",
    "a filter beyond a cosine": "concepts: {builtin: birds, filters: {max_class_similarity: 2}}\n",
    "too many examples": "evaluation: {examples: 100000}\n",
    "a word for a switch": "model: {nonnegative: maybe}\n",
    "embeddings without a path": "embeddings: {concepts: c.npz}\n",
    "an unknown precision": "model: {mixed_precision: fp4}\n",
}
_CONFIG_BYTES = {
    "UTF-16 without a mark": "name: a\n".encode("utf-16-le"),
    "Latin-1": "name: é\n".encode("latin-1"),
    "a lone surrogate": b"name: \xed\xa0\x80\n",
    "bytes of a program": b"\x7fELF" + bytes(range(256)),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "more than a MiB": b"# " + b"x" * (1 << 20) + b"\n",
}
GOOD_CONFIG = "name: a\nseed: 3\nmodel:\n  loss: l1\n  temperature: [1.0, 0.1]\nconcepts:\n  names: [red crown, lake]\n"


def configs() -> Iterator[Case]:
    """Files for `load_config`."""
    for name, text in _CONFIGS.items():
        yield name, "config.yaml", text.encode()
    for name, data in _CONFIG_BYTES.items():
        yield name, "config.yaml", data
    good = GOOD_CONFIG.encode()
    for place in range(len(good)):
        yield f"byte {place} is no UTF-8", "config.yaml", good[:place] + b"\xff" + good[place + 1 :]


# -- concept files -----------------------------------------------------------------------------------------------------

_CONCEPT_TREES: dict[str, object] = {
    "a number": 3,
    "a text": "red crown",
    "null": None,
    "true": True,
    "an empty list": [],
    "an empty mapping": {},
    "a list with a number": ["red", 3],
    "a list with null": ["red", None],
    "a list with a list": ["red", ["blue"]],
    "a list with a mapping": ["red", {"blue": 1}],
    "a list of blanks": ["  ", "\t"],
    "names is a text": {"names": "red"},
    "names is a number": {"names": 7},
    "names is a mapping": {"names": {"red": 1}},
    "names holds a number": {"names": [1.5]},
    "an unknown key": {"names": ["red"], "group": {}},
    "groups is a list": {"groups": ["red"]},
    "a group is a text": {"groups": {"crown": "red"}},
    "a group holds an unknown name": {"names": ["red"], "groups": {"crown": ["blue"]}},
    "relevance is a list": {"names": ["red"], "relevance": [["red"]]},
    "relevance names an unknown concept": {"names": ["red"], "relevance": {"robin": ["blue"]}},
    "a weight is a text": {"names": ["red"], "relevance": {"robin": {"red": "much"}}},
    "class names is a text": {"names": ["red"], "relevance": {"robin": ["red"]}, "class_names": "robin"},
    "class names lacks a class": {"names": ["red"], "relevance": {"robin": ["red"]}, "class_names": ["wren"]},
    "a class is a text": {"robin": "red crown"},
    "a class is a number": {"robin": 4},
    "a class holds a number": {"robin": [4]},
    "a key of no meaning": {"concept": "red"},
}
_CONCEPT_JSON = {
    "an unclosed list": '["red"',
    "a trailing comma": '["red",]',
    "single quotes": "['red']",
    "no quotes": "[red]",
    "a comment": '["red"] // birds',
    "two documents": '["red"]["blue"]',
    "not a number": "[NaN]",
    "a key twice": '{"names": ["a"], "names": ["b"]}',
    "a class twice": '{"robin": ["a"], "robin": ["b"]}',
    "nested beyond the stack": "[" * 100_000 + "]" * 100_000,
    "mappings beyond the stack": '{"a":' * 50_000,
    "a number of 5,000 digits": "[" + "9" * 5000 + "]",
    "a bad escape": '["\\x"]',
    "half an escape": '["\\u12"]',
    "a lone surrogate": '["\\ud800"]',
    "a raw line break in a text": '["red\ncrown"]',
    "a control character": '["red\x01crown"]',
    "blank": "  \n ",
    "nothing": "",
}
_CONCEPT_YAML = {
    "an unclosed list": "[red",
    "a tab for an indent": "names:\n\t- red\n",
    "two documents": "- red\n---\n- blue\n",
    "aliases": "robin: &a [red]\nwren: *a\n",
    "a billion laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "code by a tag": "- !!python/object/apply:os.system [echo]\n",
    "an unknown tag": "- !what x\n",
    "an impossible date": "names: 2001-13-45\n",
    "a date by a tag": "- !!timestamp 2001-12-24\n",
    "no number for a number tag": "- !!int abc\n",
    "a set": "names: !!set {red}\n",
    "a list as a key": "? [a]\n: [b]\n",
    "a key twice": "robin: [a]\nrobin: [b]\n",
    "nested beyond the stack": "[" * 20_000,
    "a NUL": "- a\0b\n",
    "an empty document": "---\n",
    "binary": "- !!binary aGVsbG8=\n",
}
_GOOD_CONCEPTS = "# source: the tests\nred crown\nblue wing\nlong curved bill\nwhite breast\nlake\n"


def concepts() -> Iterator[Case]:
    """Files for `ConceptSet.from_file`."""
    for name, tree in _CONCEPT_TREES.items():
        yield f"JSON: {name}", "concepts.json", json.dumps(tree).encode()
    for name, text in _CONCEPT_JSON.items():
        yield f"JSON: {name}", "concepts.json", text.encode()
    for name, text in _CONCEPT_YAML.items():
        yield f"YAML: {name}", "concepts.yaml", text.encode()
    yield "text: nothing", "concepts.txt", b""
    yield "text: only comments", "concepts.txt", b"# a\n# b\n"
    yield "text: UTF-16 without a mark", "concepts.txt", "red crown\n".encode("utf-16-le")
    yield "text: Latin-1", "concepts.txt", "caf\xe9\n".encode("latin-1")
    yield "text: a picture", "concepts.txt", b"\x89PNG\r\n\x1a\n" + bytes(64)
    yield "an unknown suffix", "concepts.csv", b"red\n"
    good = _GOOD_CONCEPTS.encode()
    for place in range(0, len(good), 2):
        yield f"text: byte {place} is no UTF-8", "concepts.txt", good[:place] + b"\xfe" + good[place + 1 :]


# -- embeddings --------------------------------------------------------------------------------------------------------


def _unit_rows(n: int = 8, d: int = 5) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def npy(descr: str, shape: tuple[int, ...] | str, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    """An .npy file whose header says what it likes about `data`."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    width, size = (2, "<H") if version == b"\x01\x00" else (4, "<I")
    padded = text + " " * (-(len(text) + 9 + width) % 64) + "\n"
    return b"\x93NUMPY" + version + struct.pack(size, len(padded)) + padded.encode() + data


def npz(**members: bytes | np.ndarray) -> bytes:
    """An archive of arrays, or of whatever bytes stand for one; compressed, so that bombs are small."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            if isinstance(value, np.ndarray):
                written = io.BytesIO()
                np.lib.format.write_array(written, value, allow_pickle=True)
                value = written.getvalue()
            archive.writestr(f"{name}.npy", value, compresslevel=1)
    return packed.getvalue()


def safetensors(header: object, data: bytes = b"", declared: int | None = None) -> bytes:
    """A safetensors file whose header says what it likes; `declared` is the length it gives for the header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if declared is None else declared) + text + data


def _npz_cases() -> Iterator[Case]:
    rows, labels, names = _unit_rows(), np.arange(8) % 2, np.array(["cat", "dog"])
    raw = rows.tobytes()
    arrays: dict[str, dict[str, bytes | np.ndarray]] = {
        "no arrays": {},
        "arrays of other names": {"features": rows},
        "another split": {"test_images": rows},
        "more rows declared than stored": {"train_images": npy("<f4", (9, 5), raw)},
        "fewer rows declared than stored": {"train_images": npy("<f4", (7, 5), raw)},
        "a terabyte declared": {"train_images": npy("<f4", (50_000_000_000, 5), raw)},
        "more than memory addresses": {"train_images": npy("<f4", (2**62, 2**62), raw)},
        "a negative shape": {"train_images": npy("<f4", (-8, -5), raw)},
        "a shape of words": {"train_images": npy("<f4", "('a', 'b')", raw)},
        "a shape of code": {"train_images": npy("<f4", "__import__('os').getcwd()", raw)},
        "an unknown dtype": {"train_images": npy("<q9", (8, 5), raw)},
        "a dtype of objects": {"train_images": npy("|O", (8, 5), raw)},
        "texts of a gigabyte": {"train_images": rows, "class_names": npy("<U268435456", (2,), b"cat")},
        "an unknown .npy version": {"train_images": npy("<f4", (8, 5), raw, b"\x07\x00")},
        "version 3 of .npy": {"train_images": npy("<f4", (8, 5), raw, b"\x03\x00")},
        "a header longer than the file": {"train_images": b"\x93NUMPY\x01\x00\xff\xff{}"},
        "a header of four gigabytes": {"train_images": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"},
        "a header of nothing": {"train_images": b"\x93NUMPY\x01\x00\x00\x00"},
        "no header": {"train_images": raw},
        "an empty array file": {"train_images": b""},
        "a scalar": {"train_images": np.array(1, dtype=np.float32)},
        "a vector": {"train_images": rows[0]},
        "a cube": {"train_images": rows[None]},
        "no rows": {"train_images": rows[:0]},
        "no columns": {"train_images": rows[:, :0]},
        "texts for vectors": {"train_images": rows.astype(str)},
        "complex numbers": {"train_images": rows.astype(complex)},
        "truth values": {"train_images": rows > 0},
        "dates": {"train_images": np.zeros((8, 5), dtype="M8[D]")},
        "records": {"train_images": np.zeros((8, 5), dtype="f4,f4")},
        "a NaN": {"train_images": np.where(np.arange(8)[:, None] == 3, np.nan, rows)},
        "an infinity": {"train_images": np.where(np.arange(8)[:, None] == 3, np.inf, rows)},
        "a row of zeros": {"train_images": np.where(np.arange(8)[:, None] == 3, 0, rows)},
        "rows of other lengths": {"train_images": 3 * rows},
        "a label too few": {"train_images": rows, "train_labels": labels[:-1]},
        "labels of fractions": {"train_images": rows, "train_labels": labels + 0.5},
        "labels of other texts": {"train_images": rows, "train_labels": names[labels], "class_names": names[:1]},
        "blank labels": {"train_images": rows, "train_labels": np.array([" "] * 8)},
        "negative labels": {"train_images": rows, "train_labels": -labels},
        "a label beyond the names": {"train_images": rows, "train_labels": labels + 1, "class_names": names},
        "a table of labels": {"train_images": rows, "train_labels": labels[:, None]},
        "labels of Python objects": {"train_images": rows, "train_labels": labels.astype(object)},
        "names of Python objects": {"train_images": rows, "class_names": names.astype(object)},
    }
    for name, members in arrays.items():
        yield f"npz: {name}", "e.npz", npz(**members)
    yield "npz: a bomb", "e.npz", npz(train_images=npy("<f4", (13_500_000, 5), bytes(270_000_000)))
    good = npz(train_images=rows, train_labels=labels, class_names=names)
    for share in range(0, 20):
        yield f"npz: cut after {5 * share}%", "e.npz", good[: len(good) * share // 20]


def _safetensors_cases() -> Iterator[Case]:
    rows = _unit_rows()
    raw = rows.tobytes()
    entry = {"dtype": "F32", "shape": [8, 5], "data_offsets": [0, 160]}
    files = {
        "nothing": b"",
        "seven bytes": bytes(7),
        "a header of nothing": safetensors(b""),
        "a header longer than the file": safetensors({}, declared=1 << 20),
        "a header of exabytes": safetensors({}, declared=2**63),
        "a header of all ones": b"\xff" * 64,
        "a header that is no JSON": safetensors(b"{train_images}"),
        "a header that is a list": safetensors([1, 2]),
        "a header beyond the stack": safetensors(b'{"a":' * 30_000),
        "no tensors": safetensors({}),
        "another split": safetensors({"test_images": entry}, raw),
        "an unknown dtype": safetensors({"train_images": {**entry, "dtype": "F33"}}, raw),
        "texts for vectors": safetensors({"train_images": {**entry, "dtype": "STR"}}, raw),
        "more rows than bytes": safetensors({"train_images": {**entry, "shape": [9, 5]}}, raw),
        "a terabyte declared": safetensors({"train_images": {**entry, "shape": [50_000_000_000, 5]}}, raw),
        "offsets beyond the file": safetensors({"train_images": {**entry, "data_offsets": [0, 1 << 40]}}, raw),
        "offsets backwards": safetensors({"train_images": {**entry, "data_offsets": [160, 0]}}, raw),
        "negative offsets": safetensors({"train_images": {**entry, "data_offsets": [-160, 0]}}, raw),
        "a negative shape": safetensors({"train_images": {**entry, "shape": [-8, -5]}}, raw),
        "a shape that overflows": safetensors({"train_images": {**entry, "shape": [2**62, 2**62]}}, raw),
        "bytes left over": safetensors({"train_images": entry}, raw + bytes(32)),
        "overlapping tensors": safetensors({"train_images": entry, "train_labels": entry}, raw),
        "metadata that is no text": safetensors({"__metadata__": {"a": 3}, "train_images": entry}, raw),
        "names that are no JSON": safetensors({"__metadata__": {"class_names": "[cat"}, "train_images": entry}, raw),
        "names beyond the stack": safetensors(
            {"__metadata__": {"class_names": "[" * 100_000}, "train_images": entry}, raw
        ),
        "a vector": safetensors({"train_images": {**entry, "shape": [40]}}, raw),
        "zeros": safetensors({"train_images": entry}, bytes(160)),
        "NaNs": safetensors({"train_images": entry}, b"\xff" * 160),
    }
    for name, data in files.items():
        yield f"safetensors: {name}", "e.safetensors", data


def _parquet_cases() -> Iterator[Case]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def file(**columns: object) -> bytes:
        written = io.BytesIO()
        parquet.write_table(pa.table(columns), written)
        return written.getvalue()

    rows = _unit_rows()
    tables: dict[str, dict[str, object]] = {
        "no column of embeddings": {"embeddings": rows.tolist()},
        "numbers for lists": {"embedding": rows[:, 0]},
        "texts for lists": {"embedding": ["a"] * 8},
        "lists of texts": {"embedding": [["a"]] * 8},
        "lists of lists": {"embedding": [[[1.0]]] * 8},
        "lists of two lengths": {"embedding": [[1.0], [0.6, 0.8]]},
        "a missing list": {"embedding": [[1.0], None]},
        "a missing number": {"embedding": [[0.6, 0.8], [1.0, None]]},
        "empty lists": {"embedding": [[], []]},
        "no rows": {"embedding": pa.array([], pa.list_(pa.float32()))},
        "a missing label": {"embedding": [[1.0], [1.0]], "label": [0, None]},
        "labels of fractions": {"embedding": [[1.0], [1.0]], "label": [0, 0.5]},
        "another split": {"embedding": [[1.0], [1.0]], "split": ["test", "test"]},
    }
    for name, columns in tables.items():
        yield f"parquet: {name}", "e.parquet", file(**columns)
    yield "parquet: nothing", "e.parquet", b""
    yield (
        "parquet: a bomb",
        "e.parquet",
        file(embedding=pa.FixedSizeListArray.from_arrays(np.zeros(36_000_000, "f4"), 8)),
    )
    good = file(embedding=rows.tolist())
    for share in range(1, 10):
        yield f"parquet: cut after {10 * share}%", "e.parquet", good[: len(good) * share // 10]


def embeddings() -> Iterator[Case]:
    """Files for `load_embeddings`, split "train"."""
    yield "an unknown suffix", "e.npx", b""
    # By turns, so that a hundred hold all three formats.
    turns: list[Iterator[Case]] = [_npz_cases(), _safetensors_cases(), _parquet_cases()]
    while turns:
        for cases in list(turns):
            case = next(cases, None)
            if case is None:
                turns.remove(cases)
            else:
                yield case


# -- pictures ----------------------------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header says what it likes about its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _encoded(form: str) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, form)
    return written.getvalue()


def pictures() -> Iterator[Case]:
    """Encoded pictures for `decode_image`."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    files = {
        "nothing": b"",
        "a space": b" ",
        "a text": b"this is no picture",
        "a page": b"<!doctype html><title>404</title>",
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
        "a program": b"\x7fELF" + bytes(range(256)),
        "an archive": npz(train_images=_unit_rows()),
        "a PostScript program": eps,
        "a Windows metafile": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(64),
        "a FITS file": b"SIMPLE  =                    T" + b" " * 2850,
        "a signature alone": b"\x89PNG\r\n\x1a\n",
        "a bomb": png(60_000, 60_000),
        "a bomb in grey": png(2_000_000, 2_000_000, colour=0),
        "the widest PNG": png(2**31 - 1, 1),
        "no width": png(0, 10),
        "no height": png(10, 0),
        "no pixels": png(10, 10),
        "an unknown depth": png(4, 4, bytes(52), depth=7),
        "an unknown colour type": png(4, 4, bytes(52), colour=5),
        "pixels that do not unpack": b"\x89PNG\r\n\x1a\n" + png(4, 4)[8:33] + b"\0\0\0\x04IDATabcd" + b"\0" * 4,
        "a GIF without frames": b"GIF89a\x04\x00\x04\x00\x00\x00\x00;",
        "a BMP of negative width": b"BM" + struct.pack("<IHHIIiiHH", 60, 0, 0, 54, 40, -9, 9, 1, 24) + bytes(24),
        "a TIFF that points at itself": b"II*\0\x08\0\0\0\x00\x00\x08\0\0\0",
        "a JPEG without tables": bytes.fromhex("ffd8ffc00011080010001003012200021101031101ffd9"),
        "floating-point pixels": _float_tiff(),
    }
    for name, data in files.items():
        yield name, "picture", data
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        good = _encoded(form)
        for part in range(1, 14):
            yield f"{form} cut after {part}/32", "picture", good[: len(good) * part // 32]


def _float_tiff() -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(written, "TIFF")
    return written.getvalue()


# -- models ------------------------------------------------------------------------------------------------------------

_MODEL_TREES: dict[str, Callable[[dict], object]] = {
    "a list": lambda c: [c],
    "null": lambda c: None,
    "nothing in it": lambda c: {},
    "another format": lambda c: c | {"format": "other"},
    "a later version": lambda c: c | {"format_version": 99},
    "a version in words": lambda c: c | {"format_version": "one"},
    "another checksum": lambda c: c | {"sha256": "0" * 64},
    "a checksum that is a number": lambda c: c | {"sha256": 3},
    "another class": lambda c: c | {"class": "os.system"},
    "an unknown parameter": lambda c: c | {"parameters": c["parameters"] | {"los": 1}},
    "parameters in a list": lambda c: c | {"parameters": []},
    "a temperature that is a number": lambda c: c | {"parameters": c["parameters"] | {"temperature": 1}},
    "an unknown gate": lambda c: c | {"gate": {"name": "door", "options": {}}},
    "an unknown option of the gate": lambda c: c | {"gate": c["gate"] | {"options": {"x": 1}}},
    "a gate that is a text": lambda c: c | {"gate": "dense"},
    "a concept too few": lambda c: c | {"concept_names": c["concept_names"][:-1]},
    "a concept too many": lambda c: c | {"concept_names": [*c["concept_names"], "one more"]},
    "names that are a number": lambda c: c | {"concept_names": 7},
    "a class too few": lambda c: c | {"classes": c["classes"] | {"values": c["classes"]["values"][:-1]}},
    "classes of Python objects": lambda c: c | {"classes": {"dtype": "|O8,f4", "values": [0, 1]}},
    "classes of a gigabyte each": lambda c: c | {"classes": {"dtype": "<U268435456", "values": ["a", "b", "c"]}},
    "classes of arrays": lambda c: c | {"classes": {"dtype": "(1000000000,)f8", "values": [0, 1, 2]}},
    "classes of an unknown dtype": lambda c: c | {"classes": {"dtype": "zz", "values": [0, 1, 2]}},
    "classes in a table": lambda c: c | {"classes": c["classes"] | {"values": [[0], [1], [2]]}},
    "columns that are a word": lambda c: c | {"n_features_in": "many"},
    "a column too many": lambda c: c | {"n_features_in": c["n_features_in"] + 1},
    "an infinity of columns": lambda c: c | {"n_features_in": float("inf")},
    "no history": lambda c: c | {"history": []},
    "history without steps": lambda c: c | {"history": [{}]},
    "history that is a number": lambda c: c | {"history": 1},
}


def models(config: bytes, arrays: bytes) -> Iterator[Case]:
    """Files to put in place of one of a good model's two, ``config.json`` and ``model.safetensors``."""
    good = json.loads(config)
    for name, change in _MODEL_TREES.items():
        yield f"config: {name}", "config.json", json.dumps(change(dict(good))).encode()
    # Models of earlier versions have no feature names, no certificate, and classes that exclude each other.
    for key in sorted(good.keys() - {"feature_names_in", "certificate", "multilabel"}):
        yield (
            f"config: without {key!r}",
            "config.json",
            json.dumps({k: v for k, v in good.items() if k != key}).encode(),
        )
    yield "config: beyond the stack", "config.json", b"[" * 100_000
    yield "config: a number of 5,000 digits", "config.json", b'{"format": ' + b"9" * 5000 + b"}"
    yield "config: UTF-16", "config.json", config.decode().encode("utf-16")
    for part in range(0, 16):
        yield f"config: cut after {part}/16", "config.json", config[: len(config) * part // 16]
    for part in range(0, 16):
        yield f"arrays: cut after {part}/16", "model.safetensors", arrays[: len(arrays) * part // 16]
    for part in range(32):
        place = len(arrays) * part // 32
        flipped = bytes([arrays[place] ^ 1])
        yield f"arrays: byte {place} changed", "model.safetensors", arrays[:place] + flipped + arrays[place + 1 :]


def first(cases: Iterator[Case]) -> list[Case]:
    """The first hundred, of different names."""
    found = list(islice(cases, COUNT))
    assert (len(found), len({name for name, _, _ in found})) == (COUNT, COUNT)
    return found
