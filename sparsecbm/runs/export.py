"""The run of `sparsecbm export`: a model and its encoder's image tower as one graph, for machines without Python.

A picture, prepared as the metadata says, becomes class probabilities, concept activations, and what each concept adds
to the score of the most probable class. `write_web` puts the graph into a page that needs no network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.extras import require
from sparsecbm._base.files import write_text
from sparsecbm.inputs.models import StoredModel, load_model
from sparsecbm.runs.base import Result

_FILTERS = ("bilinear", "bicubic")
_WEB = Path(__file__).parent / "web"
_RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs")


@dataclass(frozen=True)
class ExportResult(Result):
    """What was written, its bytes, and its largest difference to the model over `n_images` pictures."""

    path: Path
    bytes: int
    n_images: int
    difference: float


def export_run(
    model: str | Path,
    output: str | Path | None = None,
    *,
    web: str | Path | None = None,
    encoder: str | None = None,
) -> ExportResult:
    """Write a model as one graph: ``.onnx`` or ``.pt2``; or, with `web`, a folder with a page that runs it.

    Parameters
    ----------
    model : str or Path
    output : str or Path, optional
        File; its ending says the format.
    web : str or Path, optional
        Folder for the page, instead.
    encoder : str, optional
        Where the encoder lies now.

    Raises
    ------
    InputError
        If the file's ending is another, both or neither of `output` and `web` are given, a package is missing, the
        encoder's image tower cannot be written as a graph, or the graph does not give what the model gives.
    """
    if (output is None) == (web is None):
        raise InputError("give a file, -o MODEL.onnx or -o MODEL.pt2, or a folder for a page, --web FOLDER")
    kind = ".onnx" if output is None else Path(output).suffix
    if kind not in (".onnx", ".pt2"):
        raise InputError(f"{str(output)!r}: expected a name that ends in .onnx or .pt2")
    for package in ("onnx", "onnxscript", "onnxruntime") if kind == ".onnx" else ():
        require(package, "export", "ONNX")
    from sparsecbm.runs.graph import write_graph

    stored = load_model(model, inference=True, encoder=encoder, device="cpu")
    if web is not None:
        path = Path(web) / "model.onnx"
        difference, count = write_graph(stored, path)
        write_web(stored, Path(web))
    else:
        path = Path(str(output))
        difference, count = write_graph(stored, path)
    return ExportResult(Path(web) if web is not None else path, path.stat().st_size, count, difference)


def write_web(stored: StoredModel, folder: Path) -> None:
    """Put the page and onnxruntime-web, from its npm package, beside ``model.onnx``."""
    from sparsecbm.runs.graph import metadata

    inputs = stored.encoder._image_inputs([Image.new("RGB", (8, 8))])
    names = metadata(stored, inputs)
    known = names["picture"]["resize_mode"] in ("shortest", "squash") and names["picture"]["interpolation"] in _FILTERS
    if len(names["picture"]["shape"]) != 3 or not known:
        raise InputError(f"the page cannot prepare pictures as encoder {stored.encoder.spec!r} does; export to .onnx")
    if shutil.which("npm") is None:
        raise InputError("--web takes onnxruntime-web from npm, which is not here: install Node.js")
    with tempfile.TemporaryDirectory() as scratch:
        fetched = subprocess.run(
            ["npm", "pack", "--silent", "onnxruntime-web@1"], cwd=scratch, capture_output=True, text=True, timeout=600
        )
        packed = list(Path(scratch).glob("*.tgz"))
        if fetched.returncode or not packed:
            reason = " ".join((fetched.stderr or fetched.stdout).split())[:200]
            raise StoredFileError(f"npm cannot fetch onnxruntime-web ({reason}): connect to the network once")
        shutil.unpack_archive(packed[0], scratch, "gztar", filter="data")
        for name in _RUNTIME:
            shutil.copyfile(Path(scratch) / "package" / "dist" / name, folder / name)
    write_text(folder / "model.json", json.dumps(names, ensure_ascii=False))
    for name in ("index.html", "page.js"):
        shutil.copyfile(_WEB / name, folder / name)
