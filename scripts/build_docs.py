"""Build the documentation site: README, the rooms' own pages, the notebooks, the docstrings, the options, the commands.

Nothing is written twice: a temporary folder is filled with copies laid out as in the repository, so that every relative
link works here and there, and the reference pages are made from the code. The build fails on a broken link, on a public
name without a docstring, and on a page that would load anything from elsewhere.

Run: pip install -e ".[docs]" && python scripts/build_docs.py --output site
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import griffe
    import nbconvert
except ImportError as error:
    sys.exit(f'error: the documentation: {error.name} is not here: pip install "sparsecbm[docs]"')
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sparsecbm"

HOW_TO = {
    "Your own pictures": "sparsecbm/data/README.md",
    "Your own embeddings": "sparsecbm/embeddings/README.md",
    "Your own concepts": "sparsecbm/concepts/README.md",
    "Several GPUs": "configs/accelerate/README.md",
    "Put a model into service": "sparsecbm/runs/README.md",
    "Add a loss, a gate or a tie": "sparsecbm/bottleneck/README.md",
    "Add an encoder": "sparsecbm/encoders/README.md",
    "Add a selector": "sparsecbm/heads/README.md",
    "Find concepts, add a kind of dictionary": "sparsecbm/dictionary/README.md",
    "Add a prior": "sparsecbm/vae/README.md",
    "Add a method": "sparsecbm/estimators/README.md",
    "Add a command": "sparsecbm/cli/README.md",
}
ROOMS = {"Samplers": "sparsecbm/samplers/README.md", "What decides": "sparsecbm/evaluation/README.md"}
PUBLIC = (
    "estimators",
    "estimators.methods",
    "heads",
    "bottleneck",
    "dictionary",
    "evaluation",
    "explain",
    "embeddings",
    "encoders",
    "concepts",
    "data",
    "samplers",
    "vae",
)
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
STYLE = "tables.css"
TABLES = """
@media (min-width: 40em) { .md-typeset td:first-child code { white-space: nowrap; } }
@media (max-width: 40em) {
  .md-typeset table:has(th:nth-child(2):last-child) td { display: block; border: 0; overflow-wrap: anywhere; }
  .md-typeset table:has(th:nth-child(2):last-child) th { display: none; }
}
"""
"""Names stay whole; on a phone, what is said of a name stands below it."""

FOREIGN = re.compile(rb"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//""")


class DocsError(Exception):
    """What must be mended before the site is whole."""


def copy(source: Path, site: Path) -> None:
    """Copy a file of the repository to the same place below `site`, and a Markdown page's links to notebooks mended."""
    target = site / source.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".md":
        text = source.read_text(encoding="utf-8")
        target.write_text(re.sub(r"\]\(([^)\s]+)\.ipynb", r"](\1.md", text), encoding="utf-8")
        for link in sorted(set(LINK.findall(text))):
            linked = (source.parent / link).resolve()
            if "://" in link or link.startswith("mailto:") or linked.suffix in (".md", ".ipynb"):
                continue
            if not linked.is_relative_to(ROOT) or not linked.exists():
                raise DocsError(f"{source.relative_to(ROOT)}: the link {link} leads nowhere")
            if linked.is_file() and not (site / linked.relative_to(ROOT)).exists():
                copy(linked, site)
    else:
        shutil.copyfile(source, target)


def notebook(source: Path, site: Path) -> str:
    """Write a notebook as a page with its pictures beside it; return its title."""
    exporter = nbconvert.MarkdownExporter()
    prefix = f"{source.stem}_files"
    text, resources = exporter.from_filename(str(source), resources={"output_files_dir": prefix, "unique_key": "cell"})
    target = (site / source.relative_to(ROOT)).with_suffix(".md")
    target.parent.mkdir(parents=True, exist_ok=True)
    for name, content in resources["outputs"].items():
        (target.parent / name).parent.mkdir(exist_ok=True)
        (target.parent / name).write_bytes(content)
    target.write_text(re.sub(r"\]\(([^)\s]+)\.ipynb", r"](\1.md", text), encoding="utf-8")
    for picture in (source.parent / "pictures").glob("*"):
        copy(picture, site)
    heading = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    return heading[1] if heading else source.stem


def exported(module: griffe.Module) -> Iterator[griffe.Object | griffe.Alias]:
    """Yield the objects a room offers by its ``__all__``, wherever they are defined."""
    for name in module.exports or ():
        yield module[str(name)]


def undocumented(thing: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Yield the dotted names without a docstring: the thing itself and its public methods."""
    target = thing.final_target if thing.is_alias else thing
    if target.is_attribute:
        return
    if not target.has_docstring:
        yield target.path
    if target.is_class:
        for name, member in target.members.items():
            if member.is_function and not name.startswith("_") and not inherited_docstring(target, name):
                yield f"{target.path}.{name}"


def inherited_docstring(kind: Any, name: str) -> bool:
    """Whether a method, or the one it overrides, has a docstring."""
    owners = [kind, *(base for base in kind.mro() if base is not kind)]
    return any(name in owner.members and owner.members[name].has_docstring for owner in owners)


def reference(site: Path, package: griffe.Module) -> list[dict[str, str]]:
    """Write a page a room; raise DocsError for names of the interface without a docstring."""
    pages, missing = [], []
    for room in PUBLIC:
        module = package[room]
        names = [thing for thing in exported(module) if not thing.is_module]
        missing += sorted({path for thing in names for path in undocumented(thing)})
        lines = [f"# sparsecbm.{room}", "", str(module.docstring.value) if module.docstring else "", ""]
        lines += [f"::: sparsecbm.{room}.{thing.name}\n" for thing in names if documented_here(thing)]
        (site / "reference").mkdir(exist_ok=True)
        (site / "reference" / f"{room}.md").write_text("\n".join(lines), encoding="utf-8")
        pages.append({f"sparsecbm.{room}": f"reference/{room}.md"})
    if missing:
        raise DocsError("public names without a docstring: " + ", ".join(missing))
    return pages


def documented_here(thing: griffe.Object | griffe.Alias) -> bool:
    target = thing.final_target if thing.is_alias else thing
    return bool(target.has_docstring)


def options(site: Path) -> None:
    """Write the configuration reference: every key with its type, default and meaning, from where it is declared."""
    from sparsecbm.config.keys import documented_keys
    from sparsecbm.config.reading import KINDS

    lines = [
        "# Configuration",
        "",
        "A run is one YAML file; `--set key=value` overrides a key of it. These come with the package:",
        "",
        ", ".join(f"`{path.stem}`" for path in sorted((ROOT / "configs").glob("*.yaml"))) + ".",
        "",
    ]
    for kind, schema in KINDS.items():
        lines += [f"## sparsecbm {kind}", "", "| key | meaning |", "|---|---|"]
        for held in documented_keys(schema):
            lines.append(f"| `{held.key}` | {cell(held.meaning)} *{cell(held.type)}; {cell(held.default)}* |")
        lines.append("")
    (site / "reference" / "configuration.md").write_text("\n".join(lines), encoding="utf-8")


def cell(text: str) -> str:
    """Text as one cell of a Markdown table."""
    return text.replace("``", "`").replace("|", "\\|").replace("\n", " ")


def commands(site: Path) -> None:
    """Write the help of every command as a page."""
    import click
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    import sparsecbm.cli  # noqa: F401 - registers the commands
    from sparsecbm.cli.base import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=click.Context(command, info_name="sparsecbm"), name="sparsecbm")
    (site / "reference" / "commands.md").write_text(text.replace("# `sparsecbm`", "# Commands", 1), encoding="utf-8")


def glossary(site: Path) -> None:
    """Write the glossary of README as a page of its own, for the links of reports and terminals."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = re.search(r"^## Glossary\n(.*?)(?=^## )", text, flags=re.MULTILINE | re.DOTALL)
    if part is None:
        raise DocsError("README.md has no section 'Glossary'")
    (site / "glossary.md").write_text(f"# Glossary\n{part[1]}", encoding="utf-8")


def assemble(site: Path) -> list[Any]:
    """Fill the folder of pages; return the navigation."""
    package = griffe.load("sparsecbm", search_paths=[ROOT], resolve_aliases=True, docstring_parser="numpy")
    for page in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "scripts/README.md",
        *HOW_TO.values(),
        *ROOMS.values(),
    ):
        copy(ROOT / page, site)
    copy(PACKAGE / "encoders" / "bundled" / "MODEL_CARD.md", site)
    tutorials = [
        {notebook(path, site): path.relative_to(ROOT).with_suffix(".md").as_posix()}
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    ]
    rooms = reference(site, package)
    options(site)
    commands(site)
    glossary(site)
    return [
        {"Home": "README.md"},
        {"Tutorials": tutorials},
        {"How to": [{title: page} for title, page in HOW_TO.items()]},
        {"Rooms": [{title: page} for title, page in ROOMS.items()]},
        {"Results": "scripts/README.md"},
        {
            "Reference": [
                {"Configuration": "reference/configuration.md"},
                {"Commands": "reference/commands.md"},
                *rooms,
                {"The bundled encoder": "sparsecbm/encoders/bundled/MODEL_CARD.md"},
            ]
        },
        {"Glossary": "glossary.md"},
        {"Contributing": [{"Contributing": "CONTRIBUTING.md"}, {"Changelog": "CHANGELOG.md"}]},
    ]


def settings(pages: Path, output: Path, navigation: list[Any]) -> dict[str, Any]:
    """The site's settings. No font, script or style sheet comes from elsewhere."""
    return {
        "site_name": "sparsecbm",
        "docs_dir": str(pages),
        "site_dir": str(output),
        "use_directory_urls": False,
        "strict": True,
        "extra_css": [STYLE],
        "nav": navigation,
        "theme": {
            "name": "material",
            "font": False,
            "features": ["navigation.tabs", "navigation.top", "content.code.copy", "toc.integrate"],
            "palette": [
                {"media": "(prefers-color-scheme: light)", "scheme": "default", "primary": "teal"},
                {"media": "(prefers-color-scheme: dark)", "scheme": "slate", "primary": "teal"},
            ],
        },
        "markdown_extensions": ["tables", "attr_list", "toc", "pymdownx.superfences", "pymdownx.highlight"],
        "validation": {"links": {"not_found": "warn", "anchors": "warn", "unrecognized_links": "warn"}},
        "plugins": [
            "search",
            {
                "mkdocstrings": {
                    "default_handler": "python",
                    "handlers": {
                        "python": {
                            "paths": [str(ROOT)],
                            "options": {
                                "docstring_style": "numpy",
                                "show_source": False,
                                "show_root_heading": True,
                                "show_root_full_path": False,
                                "heading_level": 2,
                                "inherited_members": False,
                                "merge_init_into_class": True,
                                "members_order": "source",
                                "show_if_no_docstring": False,
                                "docstring_section_style": "list",
                            },
                        }
                    },
                }
            },
        ],
    }


def check(output: Path) -> None:
    """Raise DocsError if a page loads anything from elsewhere."""
    for page in sorted(output.rglob("*.html")):
        if FOREIGN.search(page.read_bytes()):
            raise DocsError(f"{page.relative_to(output)} loads something from elsewhere")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("site"), help="folder of the site (default: site)")
    output = parser.parse_args().output.resolve()
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder) / "pages"
        pages.mkdir()
        try:
            navigation = assemble(pages)
            (pages / STYLE).write_text(TABLES)
            settings_file = Path(folder) / "mkdocs.yml"
            settings_file.write_text(yaml.safe_dump(settings(pages, output, navigation), sort_keys=False))
            build(load_config(str(settings_file)))
            check(output)
        except DocsError as error:
            sys.exit(f"error: {error}")
    print(f"{output / 'index.html'}: {sum(1 for _ in output.rglob('*.html'))} pages")


if __name__ == "__main__":
    main()
