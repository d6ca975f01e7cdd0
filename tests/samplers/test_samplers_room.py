"""The room as a whole: its examples run, it stands alone, and nobody else draws noise."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import sparsecbm
import sparsecbm.samplers

PACKAGE = Path(sparsecbm.__file__).parent
MODULES = ["sparsecbm.samplers"] + [
    module.name for module in pkgutil.walk_packages(sparsecbm.samplers.__path__, "sparsecbm.samplers.")
]

# Noise of one's own, outside samplers/: draws, and the -log(-log u) idiom.
OWN_NOISE = re.compile(
    r"gumbel_softmax|exponential_\(|uniform_\(|bernoulli_\(|torch\.(?:rand|randn|randint|bernoulli|multinomial)(?:_like)?\("
    r"|random_\(|-\s*torch\.log\(\s*-\s*torch\.log|log\(\)\.neg\(\)\.log\(\)|RelaxedBernoulli|RelaxedOneHotCategorical"
    r"|distributions\.(?:Gumbel|Uniform|Exponential)"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    count = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert count >= 25


def test_the_room_stands_alone():
    """torch and the standard library are all that samplers imports."""
    allowed = {"torch", "sparsecbm.samplers", *sys.stdlib_module_names}
    for path in (PACKAGE / "samplers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names = [node.module or ""]
            for name in names:
                ok = any(name == root or name.startswith(root + ".") for root in allowed)
                assert ok, f"{path.relative_to(PACKAGE)} imports {name}"


def test_the_expression_sees_noise():
    for line in (
        "g = -torch.log(-torch.log(u))",
        "F.gumbel_softmax(logits)",
        "x.exponential_()",
        "torch.rand_like(x)",
        "u.log().neg().log()",
    ):
        assert OWN_NOISE.search(line), line
    assert not OWN_NOISE.search("g = noise.gumbel(shape, generator=generator)")


def test_losses_and_latents_have_no_noise_of_their_own():
    """Issue 3: the bottleneck's Gumbel loss and the VAEs draw from sparsecbm.samplers alone."""
    rooms = [PACKAGE / room for room in ("bottleneck", "vae") if (PACKAGE / room).is_dir()]
    files = [path for room in rooms for path in room.rglob("*.py")]
    assert files, "no bottleneck to look at"
    for path in files:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "nn.Parameter(" in line or "nn.init." in line:  # initial weights are no noise
                continue
            assert not OWN_NOISE.search(line), f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"


def test_the_gumbel_loss_uses_this_room():
    text = "".join(path.read_text() for path in (PACKAGE / "bottleneck").rglob("*.py"))
    assert "sparsecbm.samplers" in text
