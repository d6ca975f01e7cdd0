"""Make a release: version, changelog, sdist and wheel, and what they must hold; nothing is uploaded.

Needs `pip install build twine` (extra `dev`). Run: python scripts/release.py 0.2.0 [--check]
--check builds and looks at the tree as it is, and changes nothing.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONED = {
    "pyproject.toml": r'(?m)^version = "[^"]+"',
    "sparsecbm/__init__.py": r'(?m)^__version__ = "[^"]+"',
    "CITATION.cff": r"(?m)^version: .+",
}
MUST_HOLD = (
    "sparsecbm/py.typed",
    "sparsecbm/encoders/bundled/open_clip_model.safetensors",
    "sparsecbm/explain/templates/report.html.j2",
    "sparsecbm/runs/web/page.js",
    "sparsecbm/_configs/birds_gumbel.yaml",
)
MAY_HOLD = re.compile(r"(sparsecbm/|sparsecbm-[\w.]+\.dist-info/)(?!.*(__pycache__|\.pyc$|/tests?/))")
LARGEST = 16 * 2**20


def run(*command: str, **options: object) -> str:
    """Run a command in the checkout and return what it printed."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload]


def write_version(version: str) -> None:
    """Set the version where it stands, and give the changelog's first section its name."""
    for name, pattern in VERSIONED.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        line = re.search(pattern, text)
        if line is None:
            sys.exit(f"{name} has no line like {pattern}")
        new = re.sub(r'(?<=[ "])\d[\w.]*', version, line[0])
        (ROOT / name).write_text(text.replace(line[0], new, 1), encoding="utf-8")
    changes = ROOT / "CHANGELOG.md"
    text = changes.read_text(encoding="utf-8")
    if "## Unreleased\n" not in text:
        sys.exit("CHANGELOG.md has no section '## Unreleased': nothing to release")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    changes.write_text(text.replace("## Unreleased\n", f"## {version} ({today})\n", 1), encoding="utf-8")


def build(folder: Path) -> dict[str, str]:
    """Build sdist and wheel; returns the SHA-256 of each by name."""
    epoch = run("git", "log", "-1", "--format=%ct").strip()
    environment = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    run(sys.executable, "-m", "build", "--outdir", str(folder), env=environment)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def check_wheel(path: Path) -> None:
    """Refuse a wheel that lacks what the package needs, or holds what it must not."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    lacking = [name for name in MUST_HOLD if name not in names]
    strange = sorted(name for name in names if not MAY_HOLD.match(name))
    if lacking or strange or path.stat().st_size > LARGEST:
        sys.exit(f"{path.name}: {path.stat().st_size:,} bytes; lacks {lacking}; should not hold {strange[:5]}")
    print(f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--check", action="store_true", help="change nothing: build and look")
    given = parser.parse_args()
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", given.version):
        sys.exit(f"{given.version!r}: expected a version such as 0.2.0 or 0.2.0rc1")
    if not given.check:
        if run("git", "status", "--porcelain"):
            sys.exit("the tree has changes: commit them first")
        write_version(given.version)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        made, again = build(Path(first)), build(Path(second))
        different = [name for name in made if made[name] != again.get(name)]
        if different:
            sys.exit(f"not reproducible: {', '.join(different)} differ between two builds")
        run(sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(Path(first).iterdir())))
        for wheel in Path(first).glob("*.whl"):
            check_wheel(wheel)
        (ROOT / "dist").mkdir(exist_ok=True)
        for path in Path(first).iterdir():
            (ROOT / "dist" / path.name).write_bytes(path.read_bytes())
    for name, digest in made.items():
        print(f"{digest}  dist/{name}")
    print("built twice alike, metadata checked" + ("" if given.check else f"; commit, then: git tag v{given.version}"))


if __name__ == "__main__":
    main()
