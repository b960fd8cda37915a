"""Solvers of one layer against brute force, and what must hold whatever the numbers."""

import itertools

import numpy as np
import pytest

from secateur._kernels.reference.swaps import best_swap
from secateur.errors import CalibrationWarning, FactorisationError, InvalidArgumentError
from secateur.reconstruction import (
    ADMM,
    SOLVERS,
    LayerProblem,
    LayerTarget,
    Refit,
    SparseGPT,
    Swap,
    solve,
)
from secateur.reconstruction.refit import refit_cholesky, refit_gradients
from secateur.statistics import InputStatistics

EVERY = pytest.mark.parametrize("method", sorted(SOLVERS))
TARGETS = {
    "layer": LayerTarget(sparsity=0.6),
    "row": LayerTarget(sparsity=0.6, scope="row"),
    "2:4": LayerTarget("2:4"),
    "count": LayerTarget(count=17),
    "none": LayerTarget(count=0),
    "all": LayerTarget(sparsity=1.0),
}
BLOCKS = {
    "blocks": LayerTarget("block:2x4", sparsity=0.5),
    "blocks by row": LayerTarget("block:3x5", count=2, scope="row"),
}


def inputs(count=400, width=16, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * np.linspace(0.2, 2, width)
    return (rng.normal(size=(count, width)) @ mixing + offset).astype(np.float32)


def gather(x, dense=None, name="layer"):
    width = 0 if dense is None else dense.shape[1]
    statistics = InputStatistics(x.shape[1], name=name, cross=width)
    statistics.update(x, dense)
    return statistics


def make(outputs=10, width=16, seed=0, **settings):
    weight = np.random.default_rng(seed + 100).normal(size=(outputs, width)).astype(np.float32)
    return LayerProblem(weight, gather(inputs(width=width, seed=seed)), **settings)


def loss(problem, weight):
    lost = problem.target.astype(np.float64) - weight
    return np.einsum("oi,ij,oj->o", lost, problem.hessian, lost)


def least(problem, row, support):
    """Loss of the best weights of a row on a support."""
    best = np.zeros(problem.hessian.shape[0])
    if support:
        keep = np.array(support)
        right = (problem.hessian @ problem.target[row].astype(np.float64))[keep]
        best[keep] = np.linalg.solve(problem.hessian[np.ix_(keep, keep)], right)
    lost = problem.target[row] - best
    return lost @ problem.hessian @ lost


@EVERY
@pytest.mark.parametrize("kind", [*TARGETS, *BLOCKS])
def test_targets_are_met_exactly(method, kind):
    target = {**TARGETS, **BLOCKS}[kind]
    if method == "swap" and kind in BLOCKS:
        return
    problem = make()
    found = solve(problem, target, method)
    assert found.method == method
    assert found.weight.dtype == np.float32
    assert (found.weight[~found.mask] == 0).all()
    gone = ~found.mask
    if kind == "2:4":
        assert (gone.reshape(10, 4, 4).sum(axis=2) == 2).all()
    elif kind == "row":
        assert (gone.sum(axis=1) == round(0.6 * 16)).all()
    elif kind in BLOCKS:
        rows, cols = target.parsed.rows, target.parsed.cols
        units = np.add.reduceat(np.add.reduceat(gone.astype(int), range(0, 10, rows), 0),
                                range(0, 16, cols), 1)  # fmt: skip
        sizes = np.add.reduceat(np.add.reduceat(np.ones_like(gone, int), range(0, 10, rows), 0),
                                range(0, 16, cols), 1)  # fmt: skip
        assert ((units == 0) | (units == sizes)).all()
        whole = (units == sizes).sum(axis=1)
        assert (whole == 2).all() if target.scope == "row" else whole.sum() == 10
    else:
        expected = {"layer": 96, "count": 17, "none": 0, "all": 160}[kind]
        assert gone.sum() == expected
    if kind == "none":
        np.testing.assert_allclose(found.weight, problem.weight, rtol=1e-3, atol=1e-4)
        assert found.error < 1e-6
    if kind == "all":
        assert found.error == pytest.approx(1.0)


@EVERY
def test_the_error_is_that_of_the_output(method):
    x = inputs()
    weight = np.random.default_rng(5).normal(size=(7, 16)).astype(np.float32)
    found = solve(LayerProblem(weight, gather(x)), LayerTarget(sparsity=0.5), method)
    dense, sparse = x @ weight.T, x @ found.weight.T
    assert found.error == pytest.approx(np.sum((dense - sparse) ** 2) / np.sum(dense**2), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_close_to_the_best_of_all_supports(seed):
    """Per row, 3 of 7 go: all 35 supports are tried."""
    problem = make(outputs=6, width=7, seed=seed)
    best = sum(
        min(least(problem, row, kept) for kept in itertools.combinations(range(7), 4))
        for row in range(6)
    )
    target = LayerTarget(count=3, scope="row")
    found = {name: loss(problem, solve(problem, target, name).weight).sum() for name in SOLVERS}
    assert all(value >= best * (1 - 1e-4) for value in found.values())
    assert found["swap"] <= found["admm"] * (1 + 1e-6)
    assert found["admm"] <= 1.5 * best
    assert found["swap"] <= 1.3 * best


@pytest.mark.parametrize("system", ["cholesky", "cg", "auto"])
@pytest.mark.parametrize("intercept", [False, True])
def test_refit_is_least_squares(system, intercept):
    x = inputs(offset=1.5)
    weight = np.random.default_rng(3).normal(size=(8, 16)).astype(np.float32)
    mask = np.random.default_rng(4).random((8, 16)) < 0.5
    mask[3] = False
    mask[5] = mask[6]
    problem = LayerProblem(weight, gather(x), damping=1e-7, intercept=intercept)
    found = solve(problem, LayerTarget(mask=mask), Refit(system, tolerance=1e-6))
    np.testing.assert_array_equal(found.mask, mask)
    wide = x.astype(np.float64)
    for row in range(8):
        columns = wide[:, mask[row]]
        if intercept:
            columns = np.column_stack([columns, np.ones(len(x))])
        fit = np.linalg.lstsq(columns, wide @ weight[row], rcond=None)[0]
        expected = np.zeros(16)
        expected[mask[row]] = fit[: mask[row].sum()]
        np.testing.assert_allclose(found.weight[row], expected, rtol=2e-3, atol=2e-3)
        if intercept:
            assert found.bias_shift[row] == pytest.approx(fit[-1], abs=5e-3)
    assert (found.bias_shift is None) == (not intercept)


def test_both_systems_agree():
    problem = make(outputs=30, width=40)
    mask = np.random.default_rng(0).random((30, 40)) < 0.3
    direct = refit_cholesky(problem, mask)
    np.testing.assert_allclose(
        refit_gradients(problem, mask, tolerance=1e-6), direct, rtol=1e-3, atol=1e-4
    )
    warm = refit_gradients(problem, mask, direct, tolerance=1e-4, max_iterations=1)
    np.testing.assert_allclose(warm, direct, rtol=1e-2, atol=1e-3)
    with pytest.warns(CalibrationWarning, match="stopped after 1 iterations"):
        refit_gradients(problem, mask, max_iterations=1)


def test_sparsegpt_in_blocks_is_sparsegpt_at_once():
    problem = make(width=40)
    for target in (LayerTarget("2:4"), LayerTarget(mask=np.arange(400).reshape(10, 40) % 3 > 0)):
        whole = solve(problem, target, SparseGPT(block=40))
        parts = solve(problem, target, SparseGPT(block=8))
        np.testing.assert_array_equal(whole.mask, parts.mask)
        np.testing.assert_allclose(whole.weight, parts.weight, rtol=1e-3, atol=1e-4)


def test_sparsegpt_follows_the_paper():
    """Algorithm 1 written down, float64, one column at a time."""
    problem = make()
    factor = np.linalg.cholesky(np.linalg.inv(problem.hessian)).T
    weight = problem.target.astype(np.float64)
    scores = np.abs(weight / np.diagonal(factor))
    order = np.argsort(scores.reshape(-1), kind="stable")
    mask = np.ones(160, bool)
    mask[order[:80]] = False
    mask = mask.reshape(weight.shape)
    for column in range(16):
        error = np.where(mask[:, column], 0, weight[:, column]) / factor[column, column]
        weight[:, column:] -= np.outer(error, factor[column, column:])
    found = solve(problem, LayerTarget(sparsity=0.5), "sparsegpt")
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_allclose(found.weight, weight * mask, rtol=1e-3, atol=1e-4)


@EVERY
def test_outputs_may_change_places(method):
    """Rows are alike: permuting them permutes the solution."""
    problem = make()
    order = np.random.default_rng(1).permutation(10)
    other = LayerProblem(problem.weight[order], problem._statistics)
    for target in (TARGETS["row"], TARGETS["layer"], TARGETS["2:4"]):
        plain, moved = solve(problem, target, method), solve(other, target, method)
        np.testing.assert_array_equal(moved.mask, plain.mask[order])
        np.testing.assert_allclose(moved.weight, plain.weight[order], rtol=1e-3, atol=1e-4)


@EVERY
def test_scaling_weights_and_inputs_changes_nothing_else(method):
    x = inputs()
    weight = np.random.default_rng(5).normal(size=(7, 16)).astype(np.float32)
    target = LayerTarget(sparsity=0.5)
    plain = solve(LayerProblem(weight, gather(x)), target, method)
    scaled = solve(LayerProblem(weight * 8, gather(x * 4)), target, method)
    np.testing.assert_array_equal(plain.mask, scaled.mask)
    np.testing.assert_allclose(scaled.weight, plain.weight * 8, rtol=1e-3, atol=1e-3)
    assert scaled.error == pytest.approx(plain.error, rel=1e-3)


@EVERY
def test_more_zeros_never_cost_less(method):
    problem = make(outputs=20, width=32)
    errors = [
        solve(problem, LayerTarget(sparsity=sparsity), method).error
        for sparsity in (0.2, 0.4, 0.6, 0.8, 0.95)
    ]
    assert errors == sorted(errors)


def test_better_methods_lose_less():
    problem = make(outputs=40, width=48)
    for target in (
        LayerTarget(sparsity=0.7),
        LayerTarget("2:4"),
        LayerTarget(sparsity=0.7, scope="row"),
    ):
        swap, admm, sweep = (solve(problem, target, m).error for m in ("swap", "admm", "sparsegpt"))
        assert swap <= admm < sweep


def test_swaps_follow_the_oracle():
    problem = make(outputs=4, width=12)
    scale = np.sqrt(np.diagonal(problem.hessian))
    hessian = problem.hessian / scale / scale[:, None]
    first = solve(problem, LayerTarget(count=6, scope="row"), "sparsegpt")
    one = Swap(candidates=12, max_swaps=1, rounds=1, refit_iterations=0)
    weight = (first.weight * scale).astype(np.float32)
    mask = first.mask.copy()
    assert one._exchange(
        hessian.astype(np.float32), (problem.target * scale).astype(np.float32), weight, mask, 12
    )
    for row in range(4):
        change, out, put, value = best_swap(
            hessian, problem.target[row] * scale, first.weight[row] * scale, first.mask[row], 12
        )
        if change > -1e-3:
            continue
        expected = first.mask[row].copy()
        expected[[out, put]] = False, True
        np.testing.assert_array_equal(mask[row], expected)
        assert weight[row, put] == pytest.approx(value, rel=1e-3)


@EVERY
def test_dead_inputs_lose_their_weights_first(method):
    x = inputs()
    x[:, [2, 11]] = 0
    weight = np.random.default_rng(5).normal(size=(10, 16)).astype(np.float32)
    problem = LayerProblem(weight, gather(x))
    some = solve(problem, LayerTarget(count=13), method)
    assert (~some.mask[:, [2, 11]]).sum() == 13
    assert some.error < 1e-9
    kept = some.mask[:, 11]
    np.testing.assert_array_equal(some.weight[kept, 11], weight[kept, 11])
    more = solve(problem, LayerTarget(sparsity=0.5), method)
    assert not more.mask[:, [2, 11]].any()
    assert (~more.mask).sum() == 80
    assert np.isfinite(solve(problem, LayerTarget("2:4"), method).weight).all()


@EVERY
def test_inputs_that_are_all_dead(method):
    statistics = gather(np.zeros((50, 16), np.float32))
    problem = LayerProblem(np.ones((4, 16), np.float32), statistics)
    found = solve(problem, LayerTarget(sparsity=0.5), method)
    assert (~found.mask).sum() == 32
    assert found.error == 0


def test_a_constant_input_is_folded_into_the_bias():
    x = inputs()
    x[:, 4] = 3.0
    weight = np.random.default_rng(5).normal(size=(5, 16)).astype(np.float32)
    found = solve(LayerProblem(weight, gather(x), intercept=True), LayerTarget(count=5), "admm")
    assert not found.mask[:, 4].any()
    np.testing.assert_allclose(found.bias_shift, 3.0 * weight[:, 4], rtol=1e-3)


def test_the_asymmetric_target_keeps_the_dense_output():
    dense = inputs(2000)
    x = (dense + 0.5 * inputs(2000, seed=9)).astype(np.float32)
    weight = np.random.default_rng(5).normal(size=(8, 16)).astype(np.float32)
    problem = LayerProblem(weight, gather(x, dense), damping=1e-3)
    lam = problem.ridge
    wide, wide_dense = x.astype(np.float64), dense.astype(np.float64)
    gram, cross = wide.T @ wide / 2000, wide.T @ wide_dense / 2000
    expected = np.linalg.solve(gram + np.diag(lam), cross @ weight.T + lam[:, None] * weight.T).T
    np.testing.assert_allclose(problem.target, expected, rtol=1e-3, atol=1e-4)
    blind = LayerProblem(weight, gather(x, dense), damping=1e-3, asymmetric=False)
    np.testing.assert_array_equal(blind.target, weight)

    def lost(solution):
        return float(np.sum((dense @ weight.T - x @ solution.weight.T) ** 2))

    target = LayerTarget(sparsity=0.5)
    assert lost(solve(problem, target)) < lost(solve(blind, target))


def test_outputs_as_the_target():
    dense = inputs(2000)
    x = (dense + 0.3 * inputs(2000, seed=9)).astype(np.float32)
    weight = np.random.default_rng(5).normal(size=(8, 16)).astype(np.float32)
    by_inputs = LayerProblem(weight, gather(x, dense))
    by_outputs = LayerProblem(weight, gather(x, dense @ weight.T), outputs=True)
    np.testing.assert_allclose(by_outputs.target, by_inputs.target, rtol=1e-3, atol=1e-3)
    wanted = dense @ weight.T + 4.0
    problem = LayerProblem(weight, gather(x, wanted), outputs=True, intercept=True)
    found = solve(problem, LayerTarget(sparsity=0.3))
    kept = x @ found.weight.T + found.bias_shift
    np.testing.assert_allclose(kept.mean(0), wanted.mean(0), rtol=1e-3)


def test_output_weights_shift_zeros_to_what_matters_less():
    problem = make()
    weights = np.where(np.arange(10) < 5, 10.0, 1.0)
    weighed = LayerProblem(problem.weight, problem._statistics, output_weights=weights)
    for method in ("admm", "refit", "sparsegpt"):
        mask = solve(weighed, LayerTarget(sparsity=0.5), method).mask
        assert mask[:5].sum() > mask[5:].sum()
        rows = LayerTarget(sparsity=0.5, scope="row")
        np.testing.assert_allclose(
            solve(weighed, rows, method).weight, solve(problem, rows, method).weight, atol=1e-3
        )


def test_too_few_rows_warn():
    weight = np.ones((3, 16), np.float32)
    with pytest.warns(CalibrationWarning, match="16 inputs but saw only 8 rows"):
        problem = LayerProblem(weight, gather(inputs(8)))
    assert np.isfinite(solve(problem, LayerTarget(sparsity=0.5)).weight).all()


def test_a_failed_factorisation_names_the_remedy():
    problem = make()
    problem.gram[:] = 2 - np.eye(16)
    with pytest.raises(FactorisationError, match=r"'layer'.*[Rr]aise damping"):
        solve(problem, LayerTarget(sparsity=0.5), "sparsegpt")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(damping=0), "damping must be"),
        (lambda: make(damping=np.nan), "damping must be"),
        (lambda: make(outputs=3, asymmetric=True), "companion rows"),
        (lambda: make(output_weights=np.zeros(10)), "output_weights must be"),
        (lambda: make(output_weights=np.ones(9)), "output_weights must be"),
        (
            lambda: LayerProblem(np.ones((3, 5), np.float32), gather(inputs())),
            r"expected \(out, 16\)",
        ),
        (lambda: solve(make(), LayerTarget(sparsity=0.5), "magic"), "Unknown method 'magic'"),
        (lambda: solve(make(), LayerTarget(count=161)), "more than the 160"),
        (lambda: solve(make(), LayerTarget(mask=np.ones((2, 2), bool))), "mask has shape"),
        (lambda: solve(make(), LayerTarget("block:2x2", count=1), "swap"), "Swaps exchange"),
        (
            lambda: solve(make(), LayerTarget(mask=np.ones((10, 16), bool)), "swap"),
            "Swaps exchange",
        ),
        (lambda: LayerTarget(), "got none of them"),
        (lambda: LayerTarget("2:4", sparsity=0.5), "is itself the target"),
        (lambda: LayerTarget(sparsity=0.5, count=3), "Give exactly one"),
        (lambda: LayerTarget(sparsity=0.5, scope="global"), "scope must be"),
        (lambda: LayerTarget(sparsity=0.5, mask=np.ones((2, 2), bool)), "mask is itself"),
        (lambda: Refit("lu"), "system must be"),
        (lambda: ADMM(growth=1.0), "growth > 1"),
        (lambda: ADMM(max_iterations=0), "at least one iteration"),
        (lambda: SparseGPT(0), "block must be"),
        (lambda: Swap(rounds=0), "rounds must be"),
    ],
)
def test_what_cannot_be(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()


@EVERY
def test_the_number_of_threads_changes_nothing(method):
    from secateur._kernels.native import runtime

    problem = make(outputs=64, width=64)
    before = runtime.num_threads()
    found = []
    for count in (1, 3):
        runtime.set_num_threads(count)
        found.append(solve(problem, TARGETS["layer"], method))
    runtime.set_num_threads(before)
    np.testing.assert_array_equal(found[0].weight, found[1].weight)
