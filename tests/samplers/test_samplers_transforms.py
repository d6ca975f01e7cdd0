"""What PyTorch may do to a function that samples: torch.func, forward mode, compile and export, for every sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributions as D
from torch import Tensor, func

from sparsecbm.samplers import (
    BinaryConcrete,
    Concrete,
    Independent,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    RestrictedBoltzmannMachine,
    gibbs_sweep,
    hard_top_k,
    noise,
    relaxed_top_k,
)

RBM = RestrictedBoltzmannMachine(6, 4, scale=1.0, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
LOGITS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def raw(name: str) -> Callable[..., Tensor]:
    draw = getattr(noise, name)
    return lambda x, g=None: (x * draw(x.shape, generator=g, dtype=x.dtype)).cumsum(-1)


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "BinaryConcrete.rsample": lambda x, g=None: BinaryConcrete(0.5, logits=x).rsample(generator=g),
    "BinaryConcrete.draw": lambda x, g=None: BinaryConcrete(0.5, logits=x).draw(generator=g).straight_through(),
    "Concrete.rsample": lambda x, g=None: Concrete(0.5, logits=x).rsample(generator=g),
    "Concrete.draw": lambda x, g=None: Concrete(0.5, logits=x).draw(generator=g).straight_through(),
    "RelaxedBernoulli": lambda x, g=None: RelaxedBernoulli(0.5, logits=x).rsample(generator=g),
    "RelaxedOneHotCategorical": lambda x, g=None: RelaxedOneHotCategorical(0.5, logits=x).rsample(generator=g),
    "Independent": lambda x, g=None: Independent(Concrete(0.5, logits=x), x.dim() - 1).rsample(generator=g),
    "relaxed_top_k": lambda x, g=None: relaxed_top_k(x, 2, 0.5, g),
    "relaxed_top_k, successive": lambda x, g=None: relaxed_top_k(x, 2, 0.5, g, method="successive"),
    "hard_top_k": lambda x, g=None: hard_top_k(x, 2, 0.5, g),
    "log_prob": lambda x, g=None: Concrete(0.5, logits=x).log_prob(noise.gumbel(x.shape, generator=g).log_softmax(-1)),
    "log_prob, binary": lambda x, g=None: BinaryConcrete(0.5, logits=x).log_prob(
        noise.logistic(x.shape, generator=g, dtype=x.dtype)
    ),
    "log_prob, interval": lambda x, g=None: RelaxedBernoulli(0.5, logits=x).log_prob(
        noise.logistic(x.shape, generator=g, dtype=x.dtype).sigmoid()
    ),
    "log_prob, simplex": lambda x, g=None: RelaxedOneHotCategorical(0.5, logits=x).log_prob(
        noise.gumbel(x.shape, generator=g, dtype=x.dtype).softmax(-1)
    ),
    **{name: raw(name) for name in ("gumbel", "logistic", "exponential", "uniform", "normal")},
}
DISCRETE: dict[str, Callable[..., Tensor]] = {
    "bernoulli": lambda x, g=None: noise.bernoulli(x, generator=g),
    "categorical": lambda x, g=None: noise.categorical(x, generator=g),
    "gibbs_sweep": lambda x, g=None: gibbs_sweep(RBM, (x > 0).to(x.dtype), generator=g)[0],
}
ALL = SAMPLERS | DISCRETE


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss(sample: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: sample(x, seeded()).square().sum()


@pytest.mark.parametrize("name", SAMPLERS)
def test_derivatives(name: str) -> None:
    """grad, jacrev, jvp, jacfwd and dual numbers against the derivative of the plain sample of the same noise."""
    value = loss(SAMPLERS[name])
    x = LOGITS.double().requires_grad_()
    (expected,) = torch.autograd.grad(value(x), x)
    x = x.detach()
    along = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(func.grad(value)(x), expected, **close)
    torch.testing.assert_close(func.jacrev(value)(x), expected, **close)
    torch.testing.assert_close(func.jacfwd(value, randomness="same")(x), expected, **close)
    primal, tangent = func.jvp(value, (x,), (along,))
    torch.testing.assert_close(primal, value(x), **close)
    torch.testing.assert_close(tangent, (expected * along).sum(), **close)
    with torch.autograd.forward_ad.dual_level():
        dual = value(torch.autograd.forward_ad.make_dual(x, along))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, tangent, **close)


@pytest.mark.parametrize("name", ALL)
def test_vmap(name: str) -> None:
    sample = ALL[name]
    generator = seeded()
    rows = LOGITS[:1].expand(100, 6)
    apart = func.vmap(lambda x: sample(x, generator), randomness="different")(rows)
    assert not torch.equal(apart[:50], apart[50:])
    together = func.vmap(lambda x: sample(x, generator), randomness="same")(rows)
    torch.testing.assert_close(together, together[:1].expand_as(together))
    torch.testing.assert_close(
        func.vmap(lambda x: sample(x, seeded()), randomness="same")(LOGITS[:1])[0], sample(LOGITS[0], seeded())
    )
    if name in SAMPLERS:
        gradients = func.vmap(func.grad(lambda x: sample(x, generator).square().sum()), randomness="different")(rows)
        assert gradients.isfinite().all()
        assert not torch.equal(gradients[:50], gradients[50:])


def kl(kind: Any, other: float) -> Callable[[Tensor], Tensor]:
    return lambda x: D.kl_divergence(kind(0.5, logits=x), kind(torch.tensor(other), logits=x.flip(-1) + 1))


@pytest.mark.parametrize("other", [0.5, 0.8])
@pytest.mark.parametrize("kind", [BinaryConcrete, RelaxedBernoulli, Concrete, RelaxedOneHotCategorical])
def test_kl(kind: Any, other: float) -> None:
    """In closed form (equal temperatures) and by quadrature: derivatives, rows of vmap, one graph."""
    divergence, x = kl(kind, other), LOGITS[:2, :3].double()
    expected = divergence(x)
    torch.testing.assert_close(func.vmap(divergence)(x), expected)
    by_row = func.vmap(func.grad(lambda row: divergence(row).sum()))(x)
    torch.testing.assert_close(by_row, torch.autograd.functional.jacobian(lambda x: divergence(x).sum(), x))
    _, tangent = func.jvp(divergence, (x,), (torch.ones_like(x),))
    jacobian = func.jacrev(divergence)(x)
    torch.testing.assert_close(tangent, jacobian.sum((-2, -1)))
    torch._dynamo.reset()
    traced = torch.compile(divergence, fullgraph=True, backend="eager")(x)
    if kind in (Concrete, RelaxedOneHotCategorical) and other != 0.5:
        assert traced.isnan().all()  # the number of points cannot hang on a value
    else:
        torch.testing.assert_close(traced, expected)


class Everything(torch.nn.Module):
    """Every sampler in one graph."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(sample(x) for sample in ALL.values())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("how", ["compiled", "exported", "traced"])
def test_one_graph_of_all_samplers(how: str) -> None:
    """Without a break, with symbolic sizes, and the same numbers at others than it was traced with."""

    def drawn(function: Callable[[Tensor], tuple[Tensor, ...]], rows: int) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        return function(LOGITS[:rows])

    state = torch.get_rng_state()
    try:
        if how == "compiled":
            torch._dynamo.reset()
            other: Callable[..., tuple[Tensor, ...]] = torch.compile(
                Everything(), fullgraph=True, backend="eager", dynamic=True
            )
        elif how == "traced":
            other = torch.jit.trace(Everything(), LOGITS, check_trace=False)
        else:
            sizes = {"x": {0: torch.export.Dim("rows")}}
            other = torch.export.export(Everything(), (LOGITS,), dynamic_shapes=sizes).module()
        for rows in (4,) if how == "traced" else (4, 3):
            torch.testing.assert_close(drawn(other, rows), drawn(Everything(), rows))
    finally:
        torch.set_rng_state(state)


def test_what_cannot_be_looked_at_comes_out_as_nan() -> None:
    x = torch.tensor([[0.0, torch.nan], [0.0, 1.0]])
    for name in ("bernoulli", "Concrete.rsample", "relaxed_top_k", "hard_top_k"):
        drawn = func.vmap(lambda row, name=name: ALL[name](row, None), randomness="different")(x)
        assert drawn[0].isnan().any(), name
        assert not drawn[1].isnan().any(), name


def test_independent_hands_the_generator_on() -> None:
    base = BinaryConcrete(torch.tensor([[0.5], [1.0]]), logits=torch.zeros(3))
    q = Independent(base, 1)
    assert (q.batch_shape, q.event_shape) == ((2,), (3,))
    expected = base.rsample((5,), generator=seeded())
    assert torch.equal(q.rsample((5,), generator=seeded()), expected)
    assert torch.equal(q.sample((5,), generator=seeded()), expected)
    assert torch.equal(q.draw((5,), generator=seeded()).value, expected)
    wide = q.expand((4, 2))
    assert isinstance(wide, Independent)
    assert wide.rsample(generator=seeded()).shape == (4, 2, 3)
    other = Independent(BinaryConcrete(torch.tensor([[0.5], [1.0]]), logits=torch.ones(3)), 1)
    assert torch.equal(D.kl_divergence(q, other), D.kl_divergence(base, other.base_dist).sum(-1))
