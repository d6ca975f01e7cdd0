"""The report in a real browser: no request, no complaint, sorting and searching, both themes, narrow and wide."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparsecbm.explain import explain
from sparsecbm.explain.pages.report import Report

SCRIPT = Path(__file__).parents[2] / "scripts" / "screenshot_report.py"
spec = importlib.util.spec_from_file_location("screenshot_report", SCRIPT)
assert spec is not None
assert spec.loader is not None
shots = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shots)

NAMES = (
    "Array.from(document.querySelectorAll('#classes ~ [data-table] tbody tr:not([hidden]) th'), (e) => e.textContent)"
)
HEADS = "document.querySelectorAll('#classes ~ [data-table] thead th')"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    n, m, k = 300, 70, 60
    activations = np.maximum(rng.normal(size=(n, m)), 0)
    classes = [f"class {c}" for c in rng.permutation(k)]
    names = ["<script>boom()</script>", *(f"concept {j}" for j in range(1, m))]
    ledgers = explain(activations, rng.normal(size=(k, m)), np.zeros(k), names, classes)
    labels = np.where(rng.random(n) < 0.7, ledgers.targets, rng.integers(k, size=n))
    path = tmp_path_factory.mktemp("page") / "report.html"
    picture = Image.new("RGB", (64, 64), "teal")
    report = Report(ledgers, title="T", summary="S", labels=labels, picture=lambda i: picture, examples=6)
    path.write_text(report.render(), encoding="utf-8")
    return path


def test_report_in_a_browser(page_file, tmp_path) -> None:
    if shots.find_chromium() is None:
        pytest.skip("Chromium is not installed")
    pytest.importorskip("tornado", reason="tornado, which drives Chromium, is not installed")

    async def visit() -> None:
        async with shots.browser() as page:
            await page.view(390, "light")
            await page.open(page_file.resolve().as_uri())
            # Search and sort, by what a reader would press.
            assert len(await page.evaluate(NAMES)) == 40  # the first 40 of 60
            await page.evaluate("document.querySelector('#classes ~ [data-table] .more').click()")
            assert len(await page.evaluate(NAMES)) == 60
            await page.evaluate(f"{HEADS}[0].querySelector('button').click()")
            names = await page.evaluate(NAMES)
            assert await page.evaluate(f"{HEADS}[0].getAttribute('aria-sort')") == "ascending"
            assert names == sorted(names)
            await page.evaluate(f"{HEADS}[1].querySelector('button').click()")
            assert await page.evaluate(f"{HEADS}[0].hasAttribute('aria-sort')") is False
            assert await page.evaluate(f"{HEADS}[1].getAttribute('aria-sort')") == "descending"
            rows = "document.querySelectorAll('#classes ~ [data-table] tbody tr')"
            counts = await page.evaluate(f"Array.from({rows}, (e) => Number(e.cells[1].dataset.value))")
            assert counts == sorted(counts, reverse=True)
            typed = "(e) => { e.value = 'class 7'; e.dispatchEvent(new Event('input')); }"
            await page.evaluate(f"({typed})(document.querySelector('#classes ~ [data-table] input'))")
            assert "class 7" in await page.evaluate(NAMES)
            status = await page.evaluate("document.querySelector('#classes ~ [data-table] [role=status]').textContent")
            assert status.endswith("of 60 shown")
            # Themes: the system's, then the reader's choice.
            colour = "getComputedStyle(document.body).backgroundColor"
            light = await page.evaluate(colour)
            await page.view(390, "dark")
            dark = await page.evaluate(colour)
            assert dark != light
            await page.evaluate("document.getElementById('theme').click()")
            assert await page.evaluate(colour) == light
            # Nothing is wider than a phone, every control has a name, nothing was asked for, nobody complained.
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            controls = "document.querySelectorAll('button, input')"
            named = f"Array.from({controls}, (e) => Boolean(e.textContent || e.labels.length))"
            assert all(await page.evaluate(named))
            await page.photograph(tmp_path / "phone.png", limit=1500)
            assert page.console == []
            assert page.outside == []
            # The page's own policy stops whatever else would run or load, and says so.
            await page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
            script = "Object.assign(document.createElement('script'), {text: 'window.ran = 1'})"
            await page.evaluate(f"document.head.append({script})")
            assert await page.evaluate("window.ran === undefined")
            while sum("Content Security Policy" in one for one in page.console) < 2:
                await asyncio.sleep(0.02)

    asyncio.run(visit())
    assert Image.open(tmp_path / "phone.png").size == (390, 1500)
