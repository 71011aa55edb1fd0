"""Summaries and figures of the experiments on the landscape."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from landscape_cells import LOSSES, loader, loss_of, values_in_order
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from deepbures.plotting import landscape
from deepbures.plotting import tables as tabulate


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return loader(tmp_path_factory)


# --- Tables -----------------------------------------------------------------------------------------------------


def test_table_of_hessians_has_means_over_targets(tables):
    spectra = tables("hessian")["spectra"]
    table = tabulate.hessian(spectra)
    assert table.columns[:6].tolist() == ["loss_name", "epsilon", "smin", "rank", "depth", "point"]
    assert len(table) == 2 * 2 * 3 * 6
    one = table.query("loss_name == 'frobenius' and epsilon == 0 and depth == 2 and point == 3").iloc[0]
    cell = spectra.query("loss_name == 'frobenius' and epsilon == 0 and depth == 2 and point == 3")
    for name in ("smallest", "largest", "relative_condition", "absolute_condition", "negative", "spectrum_error"):
        assert one[f"{name}_mean"] == pytest.approx(cell[name].mean(), rel=1e-12)
        assert one[f"{name}_std"] == pytest.approx(cell[name].std(ddof=1), rel=1e-12)
        assert one[f"{name}_count"] == 2
    np.testing.assert_array_equal(table["negative_mean"], table["escapes_mean"])
    np.testing.assert_array_equal(table["zero_mean"], table["predicted_zero_mean"])
    latex = tabulate.with_deviations(table, tabulate.HESSIAN)
    assert latex.columns[-5:].tolist() == ["$i$"] + [tabulate.HEADINGS.get(name, name) for name in tabulate.HESSIAN]


def test_table_of_escapes_leaves_the_minimum_out(tables):
    table = tabulate.escapes(tables("escape")["escapes"])
    assert table["point"].tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(table["measured_rate_mean"], table["escape_rate_mean"], rtol=1e-3)
    assert (table["plateau_time_count"] == 1).all()
    latex = tabulate.with_deviations(table, tabulate.ESCAPES)
    assert latex.columns[-5:].tolist() == ["$i$"] + [tabulate.HEADINGS.get(name, name) for name in tabulate.ESCAPES]


def test_table_of_the_blow_up_has_exponents_and_levels(tables):
    curvatures = tables("blow_up")["curvatures"]
    table = tabulate.blow_up(curvatures).set_index(["epsilon", "rank", "depth", "vanishing"])
    assert len(table) == 3 * 2 * 2 * 2
    assert (table["exponent_count"] == 2).all()
    found = table["exponent_mean"]
    np.testing.assert_allclose([found[0, 2, 1, 1], found[0, 2, 1, 2], found[0, 4, 1, 2]], -1, atol=0.05)
    np.testing.assert_allclose([found[0, 4, 1, 1], found[0, 2, 2, 1]], 0, atol=0.1)
    np.testing.assert_allclose(found.xs(1, level="depth").loc[0.1], 0, atol=0.1)
    cell = curvatures.query("epsilon == 0.1 and rank == 2 and depth == 1 and vanishing == 1 and sigma < 1e-2")
    levels = cell.groupby("seed")[["level", "level_of_empty_columns"]].first()
    for name in ("level", "level_of_empty_columns"):
        assert table[f"{name}_mean"][0.1, 2, 1, 1] == pytest.approx(levels[name].mean(), rel=1e-12)
        assert table[f"{name}_count"][0, 2, 1, 1] == 0
    latex = tabulate.with_deviations(table.reset_index(), tabulate.BLOW_UP)
    assert latex.columns[-4:].tolist() == ["vanish"] + [tabulate.HEADINGS.get(name, name) for name in tabulate.BLOW_UP]
    assert (latex[tabulate.HEADINGS["level"]] == "--").sum() == 24 - 8


def searched(**columns):
    """Searches in one cell of rank 2, all matched at J = {0, 1} unless said otherwise."""
    number = len(next(iter(columns.values())))
    common = {
        "seed": 0,
        "start": range(number),
        "rank": 2,
        "evaluations": 9,
        "critical": 1,
        "matched": 1,
        "distance": 1e-9,
        "negative": 0,
        "escapes": 0,
        "enumerated": 11,
        "enumerated_at_rank": 6,
    }
    made = pd.DataFrame({**common, **{name: values for name, values in columns.items() if name != "kept"}})
    made["kept"] = pd.Series(columns.get("kept", [np.array([0, 1])] * number), index=made.index)
    return made


def test_table_of_searches_counts():
    searches = searched(
        seed=[0, 0, 0, 0, 1, 1, 1, 1],
        critical=[1, 1, 1, 1, 1, 1, 0, 0],
        matched=[1, 1, 1, 1, 1, 0, 0, 0],
        evaluations=[9, 9, 9, -1, 9, 9, -1, 200],  # a search may lose rank at a critical point
        kept=[np.array(kept, dtype=int) for kept in ([0, 1], [0, 1], [0, 2], [], [0, 1], [1, 2], [3], [0, 3])],
        negative=[0, 0, 2, -1, 0, -1, -1, -1],
        escapes=[0, 0, 1, 5, 0, 2, 3, 2],
        distance=[1e-9, 1e-7, 1e-8, 0, 0, 3, 5, 7],
    )
    assert tabulate.critical_search(searches).to_dict("records") == [
        {
            "rank": 2,
            "starts": 8,
            "critical": 6,
            "matched": 5,
            "unmatched": 1,
            "lost_rank": 1,
            "at_zero": 1,
            "at_rank": 4,
            "index_counted": 4,
            "index_agrees": 3,
            "found": 4,  # {0, 1}, {0, 2} and ∅ of the first target, {0, 1} of the second
            "enumerated": 22,
            "found_at_rank": 3,
            "enumerated_at_rank": 12,
            "largest_distance": 1e-7,
        }
    ]


def test_table_of_searches_has_a_row_a_cell_with_nothing_found_in_one():
    table = tabulate.critical_search(
        pd.concat([searched(depth=[1, 1]), searched(depth=[2, 2], critical=0, matched=0, evaluations=-1)])
    )
    assert table["depth"].tolist() == [1, 2]
    assert table["found"].tolist() == [1, 0]
    assert table["lost_rank"].tolist() == [0, 2]
    assert table["enumerated"].tolist() == [11, 11]


def test_counts_of_searches_add_up(tables):
    searches = tables("critical_search")["searches"]
    table = tabulate.critical_search(searches)
    assert len(table) == 2 * 2
    assert (table["starts"] == 8).all()
    assert (table["critical"] == table["matched"] + table["unmatched"]).all()
    assert (table["unmatched"] == 0).all()
    assert (table["starts"] >= table["critical"] + table["lost_rank"]).all()
    assert (table["index_agrees"] == table["at_rank"]).all()
    assert table["at_rank"].sum() == ((searches["matched"] == 1) & (searches["kept"].map(len) == 2)).sum()
    assert (table["found_at_rank"] <= table["found"]).all()
    assert (table["found"] <= np.minimum(table["matched"], 14)).all()
    assert (table["enumerated"] == 2 * 7).all()
    assert (table["enumerated_at_rank"] == 2 * 3).all()


# --- Figures ----------------------------------------------------------------------------------------------------


def drawn(figure):
    """Axes of a figure whose mathematics can be typeset, closed afterwards."""
    assert isinstance(figure, Figure)
    typeset = MathTextParser("agg").parse
    assert all(typeset(text.get_text()) for text in figure.findobj(Text) if "$" in text.get_text())
    plt.close(figure)
    return figure.axes


def legend(owner):
    found = owner.legends[0] if isinstance(owner, Figure) else owner.get_legend()
    return [text.get_text() for text in found.get_texts()]


def titles(axes):
    return [axis.get_title(loc="left") for axis in axes]


def test_figure_of_the_largest_eigenvalue(tables):
    spectra = tables("hessian")["spectra"].query("depth < 3")
    before = dict(plt.rcParams)
    figure = landscape.top_eigenvalue(spectra)
    axes = drawn(figure)
    assert dict(plt.rcParams) == before
    assert titles(axes) == ["(a) $N = 1$", "(b) $N = 2$", "(c)", "(d)"]
    assert legend(figure) == [r"BW, $\varepsilon = 0$", r"BW, $\varepsilon = 0.1$", "Frobenius"]
    assert [axis.get_yscale() for axis in axes] == ["linear", "linear", "log", "log"]
    assert axes[0].get_ylabel() == axes[2].get_ylabel() == r"$\lambda_{\max}(\nabla^2 L^N)$"
    assert axes[2].get_xlabel() == axes[3].get_xlabel() == "critical point $i$"
    # Means over the targets; the square loss once, though it stands at two smoothings.
    for axis, depth in zip(axes, [1, 2, 1, 2], strict=True):
        assert len(axis.lines) == 3
        for line, query in zip(axis.lines, ["epsilon == 0", "epsilon == 0.1", "epsilon == 0"], strict=True):
            name = "frobenius" if line is axis.lines[2] else "bures-wasserstein"
            cell = spectra.query(f"{query} and depth == {depth} and loss_name == '{name}'")
            np.testing.assert_allclose(line.get_ydata(), cell.groupby("point")["largest"].mean(), rtol=1e-12)
            assert line.get_xdata().tolist() == list(range(6))


def test_figure_of_condition_numbers(tables):
    spectra = tables("hessian")["spectra"].query("depth < 3 and epsilon == 0")
    figure = landscape.conditioning(spectra)
    axes = drawn(figure)
    assert titles(axes) == ["(a) $N = 1$", "(b) $N = 2$", "(c)", "(d)"]
    assert {axis.get_yscale() for axis in axes} == {"log"}
    assert axes[0].get_ylabel() == r"$|\kappa_{\mathrm{rel}}|$"
    assert axes[2].get_ylabel() == r"$\kappa_{\mathrm{abs}}$"
    assert axes[3].get_xlabel() == "critical point $i$"
    assert legend(figure) == [r"BW, $\varepsilon = 0$", "Frobenius"]
    # Geometric means of the sizes.
    cell = spectra.query("loss_name == 'frobenius' and depth == 2")
    for axis, column in ((axes[1], "relative_condition"), (axes[3], "absolute_condition")):
        expected = np.exp(np.log(cell[column].abs()).groupby(cell["point"]).mean())
        np.testing.assert_allclose(axis.lines[1].get_ydata(), expected, rtol=1e-12)


def test_figure_of_paths(tables):
    paths = tables("paths")["paths"]
    figure = landscape.paths(paths)
    axes = drawn(figure)
    assert titles(axes) == [r"(a) BW, $\varepsilon = 0$", "(b) Frobenius", "(c)", "(d)"]
    assert axes[0].get_ylabel() == r"$(L - L_0)\, /\, (L_P - L_0)$"
    assert axes[2].get_ylabel() == "layers minus matrices"
    assert axes[2].get_xlabel() == axes[3].get_xlabel() == "critical point $i$"
    assert legend(axes[0]) == [f"layers, $N = {depth}$" for depth in (1, 2, 3)] + ["matrices $W$"]
    for axis, name in zip(axes[:2], LOSSES, strict=True):
        *layers, matrices, points = axis.lines
        for line in (*layers, matrices):  # from 0 to 1, once over each critical point
            np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 3, 13), atol=1e-14)
            np.testing.assert_allclose(line.get_ydata()[[0, -1]], [0, 1], atol=1e-12)
        assert points.get_xdata().tolist() == [0, 1, 2]
        cell = paths[(paths["loss_name"] == name) & (paths["depth"] == 2) & (paths["pair"] == 1) & (paths["t"] == 0.5)]
        share = []
        for seed, value in zip(cell["seed"], cell["loss_between_layers"], strict=True):
            values = values_in_order(loss_of("paths", name, 0, seed), 2)
            share.append((value - values[0]) / (values[-1] - values[0]))
        assert layers[1].get_ydata()[6] == pytest.approx(np.mean(share), rel=1e-12)
    for axis in axes[2:]:
        one, two, three, _ = axis.lines
        np.testing.assert_allclose(one.get_ydata(), 0, atol=1e-12)
        assert np.abs(two.get_ydata()).max() > 1e-3
        np.testing.assert_allclose(three.get_ydata()[::4], 0, atol=1e-12)


def test_figure_of_second_order_models(tables):
    lines = tables("expansion")["lines"].query("epsilon == 0.1 and depth == 3")
    figure = landscape.second_order_model(lines)
    axes = drawn(figure)
    assert titles(axes) == [
        f"({letter}) {place}, {line}"
        for letter, (line, place) in zip(
            "abcdef", itertools.product(("random", "eigenvector"), ("minimum", "saddle", "random start")), strict=True
        )
    ]
    assert [axis.get_ylabel() for axis in axes] == ["loss $L^N$", "", ""] * 2
    assert [axis.get_xlabel() for axis in axes] == [""] * 3 + ["distance $t$ along the line"] * 3
    assert legend(figure) == ["loss", "second order, closed form", "numerical derivatives"]
    assert figure.get_suptitle() == r"$\varepsilon = 0.1$, $k = 2$, $N = 3$, one seed"
    cell = lines.query("place == 'saddle' and line == 'eigenvector'")
    for line, column in zip(axes[4].lines, ("loss", "model", "numerical_model"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), cell[column])
        np.testing.assert_array_equal(line.get_xdata(), cell["distance"])


def test_figure_of_one_expansion_needs_one_cell(tables):
    with pytest.raises(ValueError, match="this figure shows one value of epsilon, not 2: name it under `show`"):
        landscape.second_order_model(tables("expansion")["lines"])
    plt.close()


def test_figure_of_the_blow_up(tables):
    curvatures = tables("blow_up")["curvatures"]
    figure = landscape.blow_up(curvatures)
    axes = drawn(figure)
    assert titles(axes) == ["(a) matrices, $k = 2$", r"(b) level at $\sigma_{\min} = 0$", r"(c) $\varepsilon = 0$"]
    assert [axis.get_xlabel() for axis in axes] == [r"$\sigma_{\min}(W)$", r"$\varepsilon$", r"$\sigma_{\min}(W)$"]
    assert axes[0].get_ylabel() == r"$|\lambda_{\min}(\nabla^2 L_\varepsilon)|$"
    assert {axis.get_xscale() for axis in axes} == {axis.get_yscale() for axis in axes} == {"log"}
    unsmoothed, law, *smoothed = legend(axes[0])
    assert law == r"$2\lambda_{\max}(A^\top P A)/(\sigma\Vert A u\Vert)$"
    assert unsmoothed.startswith((r"$\varepsilon = 0$: $\sigma^{-1.0", r"$\varepsilon = 0$: $\sigma^{-0.99"))
    assert smoothed == [r"$\varepsilon = 0.01$", r"$\varepsilon = 0.1$"]
    assert legend(axes[1])[0].startswith(r"measured: $\varepsilon^{-0.")
    assert legend(axes[1])[1] == r"$2(\lambda_{\max}(T) - 1)$"
    names = [(1, 2, 1), (1, 2, 2), (1, 4, 1), (1, 4, 2), (2, 2, 1)]  # depth, rank, vanishing
    assert legend(axes[2]) == [f"$N = {depth}$, $k = {rank}$: {vanishing}" for depth, rank, vanishing in names]
    # Geometric means over the targets, by increasing σ.
    for line, (depth, rank, vanishing) in zip(axes[2].lines, names, strict=True):
        cell = curvatures.query(f"epsilon == 0 and depth == {depth} and rank == {rank} and vanishing == {vanishing}")
        sizes = cell.sort_values("sigma")["smallest"].abs().to_numpy().reshape(4, 2)
        np.testing.assert_allclose(line.get_ydata(), np.exp(np.log(sizes).mean(axis=1)), rtol=1e-10)
        assert (np.diff(line.get_xdata()) > 0).all()
    measured, closed = (line.get_ydata() for line in axes[1].lines)
    assert (measured >= closed * (1 - 1e-12)).all()
    for column, line in (("level", measured), ("level_of_empty_columns", closed)):
        cell = curvatures.query("depth == 1 and rank == 2 and vanishing == 1 and epsilon > 0")
        sizes = np.log(cell[column].abs()).groupby(cell["epsilon"]).mean()
        np.testing.assert_allclose(line, np.exp(sizes), rtol=1e-12)


def test_figure_of_escape_rates(tables):
    escapes = tables("escape")["escapes"]
    figure = landscape.escape_rates(escapes)
    axes = drawn(figure)
    assert titles(axes) == ["(a)", "(b)", "(c)"]
    assert [axis.get_xlabel() for axis in axes] == [
        "critical point $i$, by loss",
        "fastest $-r_{ab}$, closed form",
        "1 / fastest $-r_{ab}$",
    ]
    assert [axis.get_ylabel() for axis in axes] == ["escape rates $-r_{ab} > 0$, one seed", "measured", "plateau time"]
    assert legend(figure) == ["$N = 1$", "$N = 2$"]  # the colours of all panels
    assert legend(axes[1]) == ["equal"]
    assert legend(axes[2]) == [r"$\ln(1/\delta)\,/\,|r|$"]
    assert figure.get_suptitle() == r"$\varepsilon = 0.1$, $k = 2$"
    # One mark a rate: 1 and 2 escapes from the two saddles, at each depth.
    assert sorted(len(line.get_ydata()) for line in axes[0].lines) == [1, 1, 2, 2]
    for depth, line, stay in zip([1, 2], axes[1].lines, axes[2].lines, strict=False):
        saddles = escapes.query(f"depth == {depth} and escapes > 0")
        np.testing.assert_array_equal(line.get_xdata(), saddles["escape_rate"])
        np.testing.assert_array_equal(line.get_ydata(), saddles["measured_rate"])
        np.testing.assert_array_equal(stay.get_ydata(), saddles["plateau_time"])
    theory = axes[2].lines[-1]
    np.testing.assert_allclose(theory.get_ydata() / theory.get_xdata(), np.log(1e4), rtol=1e-12)


def test_figure_of_the_whole_landscape(tables):
    found = tables("surface")
    figure = landscape.whole_landscape(found["surface"], found["points"], found["flows"])
    axes = drawn(figure)
    panels = axes[:4]
    assert titles(panels) == [
        rf"({letter}) $N = {depth}$, $\varepsilon = {epsilon}$"
        for letter, (depth, epsilon) in zip("abcd", itertools.product((1, 3), (0, 0.1)), strict=True)
    ]
    assert [axis.get_ylabel() for axis in panels] == [r"$w_2$, along $\Omega_2$", ""] * 2
    assert [axis.get_xlabel() for axis in panels] == ["", "", *[r"$w_1$, along $\Omega_1$"] * 2]
    assert axes[4].get_ylabel() == r"loss $L_\varepsilon(W)$"
    assert legend(figure) == ["minimum, $J = \\{1\\}$", "saddle, $J = \\{2\\}$", "$W = 0$"]
    for axis, (depth, epsilon) in zip(panels, itertools.product((1, 3), (0, 0.1)), strict=True):
        *ways, minimum, saddle, origin = axis.lines
        assert len(ways) == 4
        points = found["points"].query(f"depth == {depth} and epsilon == {epsilon}")
        least = points[points["loss"] == points["loss"].min()]
        np.testing.assert_array_equal(minimum.get_xdata(), least["x"])
        assert (len(saddle.get_xdata()), origin.get_xdata().tolist(), origin.get_ydata().tolist()) == (2, [0], [0])
        flows = found["flows"].query(f"depth == {depth} and epsilon == {epsilon} and start == 2")
        np.testing.assert_array_equal(ways[2].get_xdata(), flows["x"])
