"""Forward selection, then batches of swaps (splicing): the default.

A batch adds the concepts that gain most, refits, drops as many that cost least, refits, and is kept if the objective
fell; otherwise the batch is halved. The end is a support that no single swap of the model improves. Compare abess
(Zhu et al. 2020), which splices one group of variables in linear models.
"""

from __future__ import annotations

from sparsecbm.heads.nec import top
from sparsecbm.heads.selection import forward
from sparsecbm.heads.selection.base import Budget, State, fill, gains, refit, shrink
from sparsecbm.heads.solver.softmax_sparse import AnyProblem

#: Batches of swaps on all samples, after those on a part of them.
LAST = 3


def select(problem: AnyProblem, budget: Budget, l2: float, *, rounds: int = 30, state: State | None = None) -> State:
    """Forward selection (from `state`, if given) refined by at most `rounds` batches of swaps.

    Where samples are plenty, all but the last batches are chosen on a part of them.
    """
    whole = problem.single
    part = whole.fewer
    if part is None:
        return swap(whole, forward.select(whole, budget, l2, state=state), budget, l2, rounds=rounds)
    if state is not None:
        state = refit(part, state.mask, state.coef, state.intercept, budget, l2, steps=1)
    state = swap(part, forward.select(part, budget, l2, state=state), budget, l2, rounds=rounds)
    state = refit(whole, state.mask, state.coef, state.intercept, budget, l2, steps=2)
    return swap(whole, state, budget, l2, rounds=LAST)


def swap(
    problem: AnyProblem,
    state: State,
    budget: Budget,
    l2: float,
    *,
    rounds: int = 30,
    share: float = 0.25,
    least: float = 1e-4,
) -> State:
    """Improve a support by batches of swaps, the first of `share` of the weights.

    Stops after `rounds` batches, when a batch would hold less than one weight in 200, or when a kept batch lowers the
    objective by less than `least` of it.
    """
    total = int(state.mask.sum())
    batch = max(1, int(share * total))
    smallest = max(1, total // 200)
    for _ in range(rounds):
        newcomers = top(gains(state, l2, budget), batch)
        state.release()
        grown = refit(problem, state.mask | newcomers, state.coef, state.intercept, budget, l2, steps=1, before=state)
        swapped = shrink(problem, grown, budget, l2, steps=2)
        gain = state.objective - swapped.objective
        if gain > 0:
            state = swapped
        else:
            swapped.release()
        if gain <= least * abs(state.objective):
            batch //= 2
            if batch < smallest:
                break
    return fill(problem, state, budget, l2)
