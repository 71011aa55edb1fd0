"""Configurations: every mistake gives one line that names key, value and what is allowed."""

import copy
import datetime
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from deepbures.study import configuration
from deepbures.study.cell.records import keys_of
from deepbures.study.cell.settings import KEYS, Initialization
from deepbures.study.configuration import ConfigurationError, check_families, with_numbers
from deepbures.study.configuration.check import Configuration, Study
from deepbures.study.configuration.experiment import _FRAME
from deepbures.study.configuration.families import Figure
from deepbures.study.grid.axes import AXES
from deepbures.study.grid.target import Covariances, Target
from deepbures.study.kinds import KINDS
from deepbures.study.kinds import kind as kind_of

WORKFLOW = Path(__file__).parents[2] / "workflow"
FAMILIES = configuration.read(WORKFLOW / "figures.yaml")
#: Names of the experiments of the default study.
DEFAULT = tuple(configuration.read(WORKFLOW.parent / "config/config.yaml")["experiments"])
C, D, U, A = (f"experiments.{name}." for name in ("convergence", "descent", "unbalanced", "authors"))
N, T, F = (f"experiments.{name}." for name in ("bounds_n1", "certified_n1", "finite_sample"))
H, B, P, E, S = (f"experiments.{name}." for name in ("hessian", "blow_up", "paths", "escape", "surface"))
#: Starts of a random law.
NORMAL = {"kind": "normal", "balance": "end_to_end"}
#: How a flow is followed.
INTEGRATION = {"rtol": 1e-6, "excess_tolerance": 0, "max_time": 1, "max_steps": 9, "samples": 2}


def check(config):
    """Check a configuration, and that its figures can be drawn."""
    return configuration.check(config, FAMILIES)


def changed(config, path, value):
    """Copy of a configuration with one value set, or one key removed (...)."""
    config = copy.deepcopy(config)
    *folders, last = path.split(".") if isinstance(path, str) else path
    block = config
    for key in folders:
        block = block[key]
    if value is ...:
        del block[last]
    else:
        block[last] = value
    return config


@pytest.mark.parametrize("overlays", [(), ("smoke.yaml",)])
def test_shipped_configurations_pass(shipped, overlays):
    config = shipped(*overlays)
    assert check(config) == with_numbers(config)


@pytest.mark.parametrize("overlay", ["images.yaml", "neighbours.yaml", "beyond.yaml"])
def test_a_study_may_be_limited_to_some_experiments_and_their_figures(shipped, overlay):
    own = configuration.read(WORKFLOW.parent / "config" / overlay)
    checked = check(shipped(overlay))
    assert checked["experiments"].keys() == own["experiments"].keys() == set(checked["study"]["only"])
    assert checked["figures"].keys() == own["figures"].keys()
    assert checked == check(checked)  # as an archive holds it
    # what is left out is checked as well where it is written, and a figure of nothing stays a mistake
    with pytest.raises(ConfigurationError, match="'hyperbolic'"):
        check(changed(shipped(overlay), C + "loss", "hyperbolic"))
    lost = next(iter(own["figures"]))
    with pytest.raises(ConfigurationError, match="'nothing'"):
        check(changed(shipped(overlay), f"figures.{lost}.experiment", "nothing"))


def test_smoke_study_is_smaller(shipped):
    # The overlay is merged as Snakemake does: recursively, lists replaced.
    smoke, full = shipped("smoke.yaml"), shipped()
    assert smoke["experiments"]["convergence"]["dimension"] == full["experiments"]["convergence"]["dimension"]
    for name, block in smoke["experiments"].items():
        for axis, values in block["grid"].items():
            assert len(values) <= len(full["experiments"][name]["grid"][axis])
    assert smoke["study"]["results"] != full["study"]["results"]


@pytest.mark.parametrize(
    ("text", "number"), [("1e-6", 1e-6), ("1E3", 1000.0), ("+2.5e-1", 0.25), (".5e1", 5.0), ("-1e0", -1.0)]
)
def test_numbers_that_yaml_reads_as_strings(text, number):
    assert with_numbers({"a": [{"b": text}]}) == {"a": [{"b": number}]}


@pytest.mark.parametrize("text", ["results", "1e", "e5", "0-9", "1e-6 s", "", "v1e5", "\u0663e1"])
def test_other_strings_stay(text):
    assert with_numbers(text) == text


def test_numbers_are_read_before_the_check(shipped):
    config = changed(shipped(), C + "integration.rtol", yaml.safe_load("1e-6"))
    assert config["experiments"]["convergence"]["integration"]["rtol"] == "1e-6"
    assert check(config)["experiments"]["convergence"]["integration"]["rtol"] == 1e-6
    assert config["experiments"]["convergence"]["integration"]["rtol"] == "1e-6"  # the argument is left alone


MISTAKES = [
    # Unknown, missing and misspelt keys.
    (
        "studdy",
        {},
        ["top level", "unknown key 'studdy'", "did you mean 'study'?", "allowed: study, experiments, figures"],
    ),
    ("study", ..., ["top level", "'study' is missing"]),
    ("study.sed", 1, ["study: unknown key 'sed'", "did you mean 'seed'?"]),
    ("study.a\nb", 1, ["study: unknown key", "allowed: seed, results, figures"]),
    (("study", 1), 2, ["study: unknown key 1"]),
    ("study.seed", ..., ["study: the key 'seed' is missing"]),
    (C + "integration.rtoll", 1e-6, [".integration: unknown key 'rtoll', did you mean 'rtol'?"]),
    (C + "loss", ..., ["experiments.convergence: the key 'loss' is missing (or an axis 'loss_name' of the grid)"]),
    (C + "kind", ..., ["experiments.convergence: the key 'kind' is missing"]),
    (
        C + "grid.layers",
        [5],
        ["experiments.convergence.grid", "'layers'", ", smin, rank, depth"],
    ),
    (C + "grid.depth", ..., ["experiments.convergence.grid: the key 'depth' is missing"]),
    (C + "initialization", {"kind": "small"}, ["experiments.convergence.initialization: the key 'scale' is missing"]),
    ("figures.rates.experiment", ..., ["figures.rates: the key 'experiment' is missing"]),
    (
        "figures.rate",
        {"experiment": "convergence"},
        ["figures.rate, without the key 'family': there is no family 'rate'", "did you mean 'rates'?"],
    ),
    (
        "figures.mine",
        {"experiment": "convergence", "family": "rate"},
        ["figures.mine.family: there is no family 'rate'"],
    ),
    ("figures.Mine", {"experiment": "convergence", "family": "rates"}, ["figures: 'Mine' is no valid name"]),
    ("figures.rate", {}, ["figures.rate: the key 'experiment' is missing"]),
    ("experiments.Bad Name", {}, ["'Bad Name' is no valid name: it must match [a-z][a-z0-9_]{0,99}"]),
    ("experiments." + "a" * 101, {}, ["is no valid name: it must match [a-z][a-z0-9_]{0,99}"]),
    ("experiments", {}, ["experiments: {} must hold at least 1"]),
    # Wrong types.
    ("study", [], ["study: [] must be of type dictionary"]),
    ("study.seed", "x", ["study.seed: 'x' must be of type integer"]),
    ("study.results", 5, ["study.results: 5 must be of type string"]),
    (C + "dimension", True, ["experiments.convergence.dimension: True must be of type integer"]),
    (C + "dimension", 20.5, ["experiments.convergence.dimension: 20.5 must be of type integer"]),
    (C + "grid.depth", 3, ["experiments.convergence.grid.depth: 3 must be of type list"]),
    (C + "grid.epsilon", [0, "small"], ["experiments.convergence.grid.epsilon[1]: 'small' must be of type number"]),
    (C + "integration.max_time", None, ["experiments.convergence.integration.max_time: None must be of type number"]),
    (C + "target", "zipf", ["experiments.convergence.target: 'zipf' must be of type dictionary"]),
    ("study.results", datetime.date(2023, 3, 1), ["study.results: datetime.date(2023, 3, 1) must be of type string"]),
    ("experiments", {5: {}}, ["experiments: 5 is no valid name"]),
    # Wrong values.
    ("study.seed", -1, ["study.seed: -1 must be at least 0"]),
    ("study.results", "", ["study.results: ''"]),
    (
        C + "loss",
        "burres-wasserstein",
        [".loss: 'burres-wasserstein'", "did you mean 'bures-wasserstein'?", "frobenius"],
    ),
    (C + "loss", ["a\nb"], ["experiments.convergence.loss: ['a\\nb'] must be of type string"]),
    (C + "target.mode", "singularvalues", [".target.mode: 'singularvalues'", "allowed: eigenvalues, singular values"]),
    (C + "initialization.kind", "closed", [".initialization.kind: 'closed'", "did you mean 'close'?"]),
    (
        C + "initialization",
        {"kind": "small", "scale": 0},
        [".initialization.scale: 0 must be more than 0 for the kind 'small'"],
    ),
    (C + "seeds", 0, [".seeds: 0 must be at least 1"]),
    (C + "seeds_per_job", 0, [".seeds_per_job: 0 must be at least 1"]),
    (C + "grid.epsilon", [], [".grid.epsilon: [] must hold at least 1 value"]),
    (C + "grid.epsilon", [-0.1], [".grid.epsilon[0]: -0.1 must be at least 0"]),
    (C + "grid.epsilon", [0, float("inf")], [".grid.epsilon[1]: inf must be a finite number"]),
    (C + "grid.smin", [float("nan")], [".grid.smin[0]: nan must be a finite number"]),
    (C + "grid.depth", [0], [".grid.depth[0]: 0 must be at least 1"]),
    (C + "grid.depth", [1, 2, 1], [".grid.depth[2]: 1 is given twice; each"]),
    (C + "integration.rtol", 0, [".integration.rtol: 0 must be more than 0"]),
    (C + "integration.rtol", 2, [".integration.rtol: 2 must be less than 1"]),
    (C + "integration.rtol", "1e400", [".integration.rtol: inf must be a finite number"]),
    (C + "integration.samples", 1, [".integration.samples: 1 must be at least 2"]),
    # What types cannot say.
    (C + "grid.rank", [5, 21, 30], [".grid.rank: 21, 30 must be at most the dimension, 20"]),
    (C + "loss", "frobenius", [".loss: a start of the kind 'close' needs bures-wasserstein, not 'frobenius'"]),
    ("study.only", ["flows"], ["study.only: there is no experiment 'flows'; allowed: convergence, "]),
    ("study.only", [], ["study.only"]),
    ("study.only", "convergence", ["study.only"]),
    ("study.figures", "results", ["study.figures: 'results' must not be, contain or lie in study.results"]),
    ("study.figures", "./other/../results/", ["'./other/../results/' must not be, contain or lie in study.results"]),
    ("study.figures", str(Path("results").absolute()), ["must not be, contain or lie in study.results"]),
    (
        "study.figures",
        "results/figures",
        ["'results/figures' must not be, contain or lie in study.results, 'results'"],
    ),
    ("study.figures", "results/x", ["'results/x' must not be, contain or lie in study.results, 'results'"]),
    # Figures that cannot be drawn.
    ("figures.trajectories.show", ..., ["figures.trajectories.show.epsilon: this family shows one value of it, not 0"]),
    ("figures.rates.show", {"epsilon": [0.1, 0.5]}, ["figures.rates.show.epsilon", "one value of it, not 0.1, 0.5"]),
    (C + "grid.rank", [5, 20], ["figures.trajectories.show.rank: this family shows one value of it, not 5, 20: name"]),
    (
        "figures.hessian",
        {"experiment": "convergence"},
        ["'convergence' is of the kind flow", "of hessian"],
    ),
    ("figures.constants.experiment", "hessian", ["'hessian' is of the kind hessian", "drawn of flow or descent"]),
    ("figures.step_sizes.experiment", "authors", ["needs an axis relative_step, which the grid of 'authors' does not"]),
    ("figures.descent_to_flow.experiment", "authors", ["needs compare_with_flow: true in 'authors'"]),
    ("figures.blow_up.show", {"depth": [2, 3]}, ["figures.blow_up.show.depth: this family needs 1 among its values"]),
    (
        "experiments.low_rank.grid.smin",
        [0.5, 1],
        ["figures.low_rank.show.smin: this family shows one value of it, not 0.5, 1"],
    ),
    (
        "figures.rates.experiment",
        "convergance",
        ["figures.rates.experiment", "did you mean 'convergence'?", "low_rank"],
    ),
    (
        "figures.rates.show",
        {"depth": [3]},
        ["figures.rates.show.depth: 3 is not in the grid of convergence", "1, 7, 10"],
    ),
    (
        "figures.rates.show",
        {"dept": [1]},
        ["figures.rates.show.dept: the grid of convergence has no such axis", "did you mean 'depth'?"],
    ),
    # Seeds in whole blocks, so that adding some recomputes none.
    (C + "seeds", 15, [".seeds: 15 must be a multiple of seeds_per_job, 10"]),
    (C + "initialization", {"kind": "close", "scale": 0}, [".initialization.scale: 0 must be more than -1 and not 0"]),
    (C + "initialization", {"kind": "close", "scale": -1}, [".initialization.scale: -1 must be more than -1"]),
    (C + "initialization", {"kind": "aligned"}, ["the key 'scale' is missing: the kind 'aligned' needs it"]),
    (C + "initialization", {"kind": "aligned", "scale": -0.1}, [".scale: -0.1 must be more than 0 for the kind 'alig"]),
    (C + "grid.initial_scale", [0.1, 0], [".grid.initial_scale: 0 must be more than -1 and not 0"]),
    (N + "grid.initial_scale", [0.1, -0.5], [".grid.initial_scale: -0.5 must be more than 0 for the kind 'small'"]),
    (N + "initialization.scale", 0.1, [".grid.initial_scale: initialization.scale is given too; keep one of the two"]),
    (U + "grid.initial_scale", [0.1], [".grid.initial_scale: the kind 'normal' has no scale"]),
    (H + "grid.initial_scale", [0.1], [".hessian.grid: unknown key 'initial_scale'"]),
    # Steps of the theorem, and finite samples.
    (N + "grid.theorem_step", [1], [".bounds_n1.grid: unknown key 'theorem_step'"]),
    (D + "grid.theorem_step", [1], [".descent.grid", "one of the axes", "theorem_step"]),
    (T + "grid.loss_name", ["frobenius"], [".certified_n1"]),
    (T + "descent", {"end_time": 1, "samples": 5}, [".descent.end_time: needs the axis 'step_size' in the grid"]),
    (F + "sampling", ..., [": the key 'sampling' is missing"]),
    (F + "sampling.sizes", [10, 4], [".sampling.sizes[1]: 4 must be at least the rank, 5"]),
    (F + "sampling.draws", 0, [".sampling.draws: 0 must be at least 1"]),
    (F + "loss", "frobenius", [".loss: kind 'finite_sample' needs bures-wasserstein, not 'frobenius'"]),
    (C + "sampling", {"sizes": [10], "draws": 1}, [": unknown key 'sampling'"]),
    # Losses, starts and balance: in the block or as an axis, and not both.
    (C + "grid.loss_name", ["frobenius"], [".convergence.grid.loss_name: loss is given too; keep one of the two"]),
    (C + "grid.initialization", ["small"], [".convergence.grid.initialization: initialization.kind is given too"]),
    (
        "experiments.descent_low_rank.grid.balance",
        ["product"],
        [".descent_low_rank.grid.balance: initialization.balance is given too; keep one of the two"],
    ),
    (C + "initialization", {}, [".initialization: the key 'kind' is missing (or an axis 'initialization'"]),
    (U + "grid.initialization", ["normale"], [".grid.initialization[0]: 'normale'", "did you mean 'normal'?"]),
    (U + "grid.balance", ["ballanced"], [".grid.balance[0]: 'ballanced'", "allowed: none, product, end_to_end"]),
    (
        "experiments.loss_comparison.grid.loss_name",
        ["mse"],
        [".grid.loss_name[0]: 'mse'", "allowed: bures-wasserstein"],
    ),
    (U + "grid.balance", ["none", "none"], [".grid.balance[1]: 'none' is given twice"]),
    (
        U + "initialization.gain",
        1,
        [".initialization: unknown key 'gain'", "allowed: kind, balance, scale, end_rank, imbalance, width"],
    ),
    # Starts that make no sense.
    (D + "initialization", {"kind": "normal"}, [".initialization: the key 'balance' is missing", "'normal' needs it"]),
    (
        D + "initialization",
        {"kind": "close", "balance": "none"},
        [".initialization.balance: the kinds 'close', 'small', 'aligned', 'level', 'saddle' are always balanced"],
    ),
    (U + "grid.initialization", ["normal", "close"], [".grid.balance: the kinds 'close', 'small'"]),
    (U + "grid.initialization", ["normal", "small"], [".initialization: the key 'scale' is missing: the kind 'small'"]),
    (U + "initialization", {"scale": 0.1}, [".initialization.scale: the kind 'normal' has no scale"]),
    ("experiments.loss_comparison.initialization", {"kind": "close"}, [".grid.loss_name: a start of the kind 'close'"]),
    (C + "initialization.end_rank", 21, [".initialization.end_rank: 21 must be at most the rank, 20"]),
    (
        "experiments.low_rank.initialization",
        {"kind": "small", "scale": 0.1, "end_rank": 2},
        [".low_rank.initialization.end_rank: 2 must be at most the rank, 1"],
    ),
    (C + "initialization.end_rank", 0, [".initialization.end_rank: 0 must be at least 1"]),
    (C + "initialization", {"kind": "level"}, ["the key 'scale' is missing: the kind 'level' needs it"]),
    (
        C + "initialization",
        {"kind": "saddle", "scale": -0.5},
        [".scale: -0.5 must be more than 0 for the kind 'saddle'"],
    ),
    (C + "initialization", {"kind": "close", "imbalance": 0.1}, [".initialization.imbalance: a flow needs balanced"]),
    (
        "experiments.finite_sample.initialization",
        {"kind": "small", "scale": 0.1, "width": 5},
        [".initialization.width: a flow from balanced layers"],
    ),
    (D + "initialization", {"kind": "close", "imbalance": -1}, [".initialization.imbalance: -1 must be at least 0"]),
    ("experiments.widths.grid.width", [9, 10], [".widths.grid.width: 9 must be at least the rank, 10"]),
    ("experiments.widths.grid.depth", [2], [".widths.grid.depth: a width needs N ≥ 3 (k < n), not 2"]),
    ("experiments.imbalance.grid.rank", [2], [".imbalance.grid.rank[0]: kind 'layers' needs the rank n = 3, not 2"]),
    ("experiments.deep_steps.grid.epsilon", [0.1], [".grid.epsilon: kind 'deep_steps' needs 0, not 0.1"]),
    (C + "initialization", {"kind": "normal", "balance": "none"}, [".initialization.balance: a flow needs a balanced"]),
    # How it is trained.
    (
        C + "kind",
        "flows",
        [".convergence.kind: 'flows' is not allowed", "'flow'?", "allowed: barycenter"],
    ),
    (C + "kind", "descent", [": unknown key 'integration'"]),
    (D + "kind", "flow", [".descent: unknown key 'descent'"]),
    (C + "integration", ..., [".convergence: the key 'integration' is missing"]),
    (D + "descent", ..., [".descent: the key 'descent' is missing"]),
    (C + "grid.step_size", [0.1], [".convergence.grid: unknown key 'step_size'"]),
    (C + "grid.relative_step", [0.1], [".convergence.grid: unknown key 'relative_step'"]),
    (
        D + "grid.relative_step",
        ...,
        [".descent.grid", "one of the axes step_size, relative_step, theorem_step, proved_step"],
    ),
    (
        D + "grid.step_size",
        [0.1],
        [".descent.grid", "one of the axes step_size, relative_step, theorem_step, proved_step"],
    ),
    (D + "grid.relative_step", [0], [".grid.relative_step[0]: 0 must be more than 0"]),
    (A + "grid.step_size", [-1e-5], [".grid.step_size[0]: -1e-05 must be more than 0"]),
    (A + "grid.step_size", [1e-5, 1e-5 + 1e-20], [".grid.step_size[1]", "is given twice, to 12 digits"]),
    # When it ends and what is recorded.
    (D + "descent.max_steps", ..., [".descent.descent: exactly one of the keys 'max_steps' and 'end_time' is needed"]),
    (A + "descent.max_steps", 5, [".authors.descent: exactly one of the keys 'max_steps' and 'end_time' is needed"]),
    (D + "descent.samples", ..., [".descent.descent: exactly one of the keys 'samples' and 'record_every' is needed"]),
    (A + "descent.samples", 5, [".authors.descent: exactly one of the keys 'samples' and 'record_every' is needed"]),
    (D + "descent", {"end_time": 1, "samples": 5}, [".descent.end_time: needs the axis 'step_size' in the grid"]),
    (A + "descent.end_time", 2.000005, [".authors.grid.step_size[0]: 1e-05 must divide end_time, 2.000005"]),
    (A + "grid.step_size", [1, 4], [".authors.grid.step_size[1]: 4 must divide end_time, 3"]),
    (A + "descent.record_every", 0, [".descent.record_every: 0 must be at least 1"]),
    (D + "descent.excess_tolerance", -1, [".descent.excess_tolerance: -1 must be at least 0"]),
    (D + "descent.max_step", 1, [".descent: unknown key 'max_step', did you mean 'max_steps'?"]),
    (D + "descent.compare_with_flow", True, [".descent.compare_with_flow: needs end_time"]),
    (D + "descent.compare_with_flow", "yes", [".descent.compare_with_flow: 'yes' must be of type boolean"]),
    (
        "experiments.descent_to_flow.initialization",
        {"kind": "normal", "balance": "none"},
        [".initialization.balance: a flow needs a balanced start, not 'none'"],
    ),
    # Experiments on the landscape: keys of their own, and of no other kind.
    (
        H + "kind",
        "hesian",
        [".hessian.kind: 'hesian' is not allowed", "did you mean 'hessian'?", "hessian, layers"],
    ),
    (H + "kind", "flow", [".hessian: unknown key 'landscape'"]),
    (H + "kind", "paths", [".hessian.landscape: unknown key 'matrices'; allowed: points, samples"]),
    (C + "kind", "hessian", [".convergence: unknown key 'initialization'"]),
    (C + "dynamics", "flow", ["experiments.convergence: unknown key 'dynamics'", "allowed: kind, loss"]),
    (C + "landscape", {"points": 3}, [".convergence: unknown key 'landscape'"]),
    (D + "landscape", {}, [".descent: unknown key 'landscape'"]),
    (H + "landscape", ..., [".hessian: the key 'landscape' is missing"]),
    (H + "landscape", {}, [".hessian.landscape: the key 'points' is missing"]),
    (B + "landscape.vanishing", ..., [".landscape: the key 'vanishing' is missing"]),
    (B + "landscape.singular_values", ..., [".landscape: the key 'singular_values' is missing"]),
    (P + "landscape.samples", ..., [".paths.landscape: the key 'samples' is missing"]),
    ("experiments.expansion.landscape.reach", ..., [".landscape: the key 'reach' is missing"]),
    (E + "landscape.perturbation", ..., [".landscape: the key 'perturbation' is missing"]),
    (S + "landscape.starts", ..., [".landscape: the key 'starts' is missing"]),
    ("experiments.critical_search.landscape", {}, [".landscape: the key 'starts' is missing"]),
    (H + "landscape.samples", 5, [".hessian.landscape: unknown key 'samples'"]),
    (E + "landscape.reach", 1, [".landscape: unknown key 'reach'"]),
    (H + "landscape.point", 5, [".hessian.landscape: unknown key 'point'", "did you mean 'points'?"]),
    (H + "initialization", {}, [".hessian: unknown key 'initialization'"]),
    (E + "initialization", NORMAL, [".escape: unknown key 'initialization'"]),
    (E + "integration", INTEGRATION, [".escape: unknown key 'integration'"]),
    (H + "descent", {"max_steps": 5, "samples": 2}, [".hessian: unknown key 'descent'"]),
    (H + "grid.step_size", [0.1], [".hessian.grid: unknown key 'step_size'"]),
    (H + "grid.relative_step", [0.1], [".hessian.grid: unknown key 'relative_step'"]),
    (H + "grid.initialization", ["small"], [".hessian.grid: unknown key 'initialization'"]),
    (H + "grid.balance", ["none"], [".hessian.grid: unknown key 'balance'"]),
    (
        H + "loss",
        "frobenius",
        [".hessian.grid.loss_name: loss is given too; keep one of the two"],
    ),
    (H + "grid.loss_name", ..., [".hessian: the key 'loss' is missing (or an axis 'loss_name' of the grid)"]),
    (B + "loss", ..., [".blow_up: the key 'loss' is missing (or an axis 'loss_name' of the grid)"]),
    # Their values.
    (H + "landscape.points", 1, [".hessian.landscape.points: 1 must be at least 2"]),
    (H + "landscape.points", 2.5, [".hessian.landscape.points: 2.5 must be of type integer"]),
    (P + "landscape.samples", 2, [".paths.landscape.samples: 2 must be at least 3"]),
    (S + "landscape.starts", 1, [".surface.landscape.starts: 1 must be at least 2"]),
    (E + "landscape.perturbation", 0, [".escape.landscape.perturbation: 0 must be more than 0"]),
    (E + "landscape.perturbation", 0.1, [".escape.landscape.perturbation: 0.1"]),
    ("experiments.expansion.landscape.reach", 0, [".expansion.landscape.reach: 0 must be more than 0"]),
    (B + "landscape.singular_values", [], [".landscape.singular_values: [] must hold at least 1 value"]),
    (B + "landscape.singular_values", [1, -0.1], [".landscape.singular_values[1]: -0.1 must be more than 0"]),
    (B + "landscape.singular_values", [1, 0], [".landscape.singular_values[1]: 0 must be more than 0"]),
    (B + "landscape.singular_values", [1, 1], [".landscape.singular_values[1]: 1 is given twice"]),
    (B + "landscape.vanishing", [0], [".landscape.vanishing[0]: 0 must be at least 1"]),
    (B + "landscape.vanishing", [1, 6], [".blow_up.landscape.vanishing: 6 must be at most the rank, 5"]),
    (H + "grid.rank", [5, 11], [".hessian.grid.rank: 11 must be at most the dimension, 10"]),
    (S + "dimension", 3, [".surface.dimension: a surface needs dimension 2 and rank 1"]),
    (S + "grid.rank", [1, 2], [".surface.dimension: a surface needs dimension 2 and rank 1"]),
    # Figures of axes that the experiment has not.
    ("figures.hessian.show", {"step_size": [1]}, [".show.step_size: the grid of hessian has no such axis"]),
    ("figures.rates.show", {"relative_step": [1]}, [".show.relative_step: the grid of convergence has no such axis"]),
    ("figures.unbalanced.show", {"balance": ["all"]}, [".show.balance: 'all' is not in the grid", "none, product"]),
    # Two values with one spelling would share a folder.
    (C + "grid.epsilon", [0.1, 0.1 + 1e-15], [".grid.epsilon"]),
]


@pytest.mark.parametrize(
    ("path", "value", "fragments"), MISTAKES, ids=[f"{path}={value!r}"[:60] for path, value, _ in MISTAKES]
)
def test_mistake_gives_one_line(shipped, path, value, fragments):
    with pytest.raises(ConfigurationError) as caught:
        check(changed(shipped(), path, value))
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


VALID = [
    (D + "initialization", NORMAL),
    (D + "initialization", {"kind": "orthogonal", "balance": "none", "end_rank": 3}),
    (D + "initialization", {"kind": "small", "scale": 0.1}),
    (C + "initialization", {"kind": "close", "scale": 0.1}),
    (C + "initialization", {"kind": "aligned", "scale": 0.1}),
    (C + "grid.initial_scale", [-0.5, 0.1, 10.95]),
    (C + "initialization", NORMAL),
    (C + "initialization", {"kind": "uniform", "balance": "product"}),
    (D + "descent", {"max_steps": 5, "record_every": 2}),
    (A + "descent.compare_with_flow", True),
    (A + "descent.end_time", 0.3),  # 0.3 / 1e-5 is 29999.999999999996 in floats
    (A + "grid.step_size", ["1e-5", "2.5e-5"]),
    ("figures.unbalanced.show", {"balance": ["none"], "initialization": ["normal"], "depth": [10]}),
    (H + "landscape.points", 2.0),
    (H + "grid.rank", [1, 10]),
    (B + "landscape.vanishing", [5]),
    (B + "landscape.singular_values", ["1e-3"]),
    (E + "landscape.perturbation", "1e-3"),
    ("experiments.critical_search.dimension", 3),
    ("figures.paths.show", {"epsilon": [0.1], "loss_name": ["frobenius"]}),
]


@pytest.mark.parametrize(("path", "value"), VALID, ids=[f"{path}={value!r}"[:60] for path, value in VALID])
def test_what_makes_sense_passes(shipped, path, value):
    config = changed(shipped(), path, value)
    assert configuration.check(config) == with_numbers(config)


def test_every_kind_is_whole_and_in_the_study(shipped):
    for kind in map(kind_of, KINDS):
        assert kind.TABLES
        assert kind.COST > 0
        assert hasattr(kind, "run") != hasattr(kind, "run_stack"), kind  # exactly one of the two
    studies = map(configuration.read, (WORKFLOW.parent / "config").glob("*.yaml"))
    blocks = (block for study in studies for block in study["experiments"].values())
    assert {block["kind"] for block in blocks if "kind" in block} == set(KINDS)


def test_options_of_kinds_and_reference_are_in_step():
    # config/README.md explains each option, and the keys of a start.
    reference = (WORKFLOW.parent / "config/README.md").read_text(encoding="utf-8")
    table = [line for line in reference.splitlines() if line.startswith("|")]
    for kind in KINDS:
        for section, options in kind_of(kind).OPTIONS.items():
            for key in keys_of(options):
                named = (f"`{section}.{key}`", f"`.{key}`")
                rows = [row for row in table if f"`{key}`" in row or any(name in row for name in named)]
                assert rows, (kind, key)
                if section == "landscape":
                    own = (f"| `{kind}` |", f"for `{kind}`:")
                    assert any(row.startswith(own[0]) or own[1] in row for row in rows), (kind, key)
    assert all(f"`initialization.{key}`" in reference for key in keys_of(Initialization))
    named = set(re.findall(r"[a-z_]+", "".join(re.findall(r"`[^`]*`|^#+ .*$", reference, flags=re.MULTILINE))))
    declared = (Configuration, Study, Figure, Target, Covariances)
    assert set(AXES).union(_FRAME, *map(keys_of, declared)) <= named


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in DEFAULT
        if kind in KINDS and "landscape" in kind_of(kind).OPTIONS and not hasattr(kind_of(kind), "SPECTRUM")
    ],
)
def test_landscape_may_have_its_loss_in_the_block_or_as_an_axis(shipped, kind):
    config = shipped()
    block = config["experiments"][kind]
    block.pop("loss", None)
    block["grid"]["loss_name"] = ["frobenius", "bures-wasserstein"]
    for figure in config["figures"].values():
        figure.pop("show", None)
    assert configuration.check(config) == with_numbers(config)
    del block["grid"]["loss_name"]
    block["loss"] = "frobenius"
    assert configuration.check(config) == with_numbers(config)


@pytest.mark.parametrize("config", [None, [], "study"])
def test_configuration_must_be_a_mapping(config):
    with pytest.raises(ConfigurationError, match=r"^the top level: .* must be of type dictionary$"):
        check(config)


@pytest.mark.parametrize("path", ["seeds", "seeds_per_job", "dimension", "integration.max_steps"])
@pytest.mark.parametrize("value", [20.0, "2e1"])
def test_whole_numbers_become_integers(shipped, path, value):
    # YAML has 20.0 for a float, which `range` refuses.
    config = changed(shipped(), C + "seeds", 20)  # a multiple of every block size tried
    block = check(changed(config, C + path, value))["experiments"]["convergence"]
    for key in path.split("."):
        block = block[key]
    assert block == 20
    assert isinstance(block, int)


def test_whole_numbers_on_integer_axes_become_integers(shipped):
    config = shipped()
    depths = config["experiments"]["low_rank"]["grid"]["depth"]
    config = changed(config, "experiments.low_rank.grid.depth", [float(depth) for depth in depths])
    found = check(config)["experiments"]["low_rank"]["grid"]["depth"]
    assert found == depths
    assert all(isinstance(depth, int) for depth in found)


def test_large_numbers_stay_floats():
    assert with_numbers([1e300, 2.0**53 - 1]) == [1e300, 2**53 - 1]
    assert [type(value) for value in with_numbers([1e300, 2.0**53 - 1, 20.0])] == [float, int, int]


@pytest.mark.parametrize("path", ["results/x", "./results/x", "results//x/", "results/../results/./x"])
def test_a_path_has_one_spelling(shipped, tmp_path, path):
    np.save(tmp_path / "own.npy", np.eye(20))
    config = changed(shipped(), "study.results", path)
    block = config["experiments"]["convergence"]
    block["target"] = {"covariance": f"{tmp_path}/.//own.npy"}
    block["grid"]["smin"] = [-1]
    checked = check({**config, "figures": {}})
    assert checked["study"]["results"] == "results/x"
    assert checked["experiments"]["convergence"]["target"] == {"covariance": f"{tmp_path}/own.npy"}


def test_words_of_the_command_line_are_read_as_in_a_file():
    given = {"study": {"seed": "3", "results": "a/b", "fail": "true"}, "e": {"grid": {"epsilon": ["0", "1e-6", ".5"]}}}
    read = configuration.of_command_line(given)
    assert read["study"] == {"seed": 3, "results": "a/b", "fail": True}
    assert with_numbers(read["e"]["grid"]["epsilon"]) == [0, 1e-6, 0.5]
    assert configuration.of_command_line({"a": [1, 2.5, None, "[b]"]}) == {"a": [1, 2.5, None, "[b]"]}
    for word, one, other in (("010", "8", "10"), ("yes", "True", "'yes'"), ("1:30", "90", "'1:30'")):
        message = re.escape(f"--config: {word}: Snakemake reads {one} (YAML 1.1), YAML 1.2 reads {other}: write")
        with pytest.raises(ConfigurationError, match=message):
            configuration.of_command_line({"study": {"seed": [word]}})


# Files: what YAML would lose or change without a word.


def _repeated(form):
    """Twelve levels, each of which repeats the one before eight times: 8¹² values."""
    levels = (form.format(", ".join([f"*a{i}"] * 8)) for i in range(12))
    return "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {level}\n" for i, level in enumerate(levels, 1))


STRANGE = [
    ("study: 1\nexperiments: {}\nstudy: 2\n", 'not YAML: line 3: found duplicate key "study"'),
    ("a:\n  low: {x: 1}\n  high: 2\n  low: {y: 1}\n", 'not YAML: line 4: found duplicate key "low"'),
    ("a: {b: 1, b: 1}\n", 'not YAML: line 1: found duplicate key "b"'),
    ("a: [{b: 1}, {c: 1, c: 2}]\n", 'not YAML: line 1: found duplicate key "c"'),
    ('{"a": 1, "a": 2}', 'not YAML: line 1: found duplicate key "a"'),
    ("a: 1\n'a': 2\n", 'not YAML: line 2: found duplicate key "a"'),
    ("a:\n\tb: 1\n", "not YAML: line 2: found character '\\t'"),
    ("a:\n  b: 1\n \tc: 2\n", "not YAML: line 3: found character '\\t'"),
    ("a: 010\n", "a: Snakemake reads 8 (YAML 1.1), YAML 1.2 reads 10: write plain digits"),
    ("a: [1,\n 0777]\n", "a[1]: Snakemake reads 511 (YAML 1.1)"),
    ("a: {b: 0o10}\n", "a.b: Snakemake reads '0o10' (YAML 1.1), YAML 1.2 reads 8"),
    ("a: 08\n", "a: Snakemake reads '08' (YAML 1.1), YAML 1.2 reads 8"),
    ("a: 1:30\n", "a: Snakemake reads 90 (YAML 1.1), YAML 1.2 reads '1:30'"),
    ("a: 1:30.5\n", "a: Snakemake reads 90.5 (YAML 1.1)"),
    ("a: yes\n", "a: Snakemake reads True (YAML 1.1), YAML 1.2 reads 'yes'"),
    ("a: [No]\n", "a[0]: Snakemake reads False (YAML 1.1)"),
    ("a: on\n", "a: Snakemake reads True (YAML 1.1)"),
    ("a: 2023-13-01\n", "month must be in 1..12"),
    ("a: =\n", "not YAML: line 1: could not determine a constructor"),
    ("off: 1\n", "Snakemake reads {False: 1} (YAML 1.1), YAML 1.2 reads {'off': 1}"),
    ("? [a, b]\n: 1\n", "not YAML: line 1: found unhashable key"),
    ("a: [1\n", "not YAML: line 2: expected"),
    ("a: 1\n---\na: 2\n", "not YAML: line 2"),
    ("a: !!python/object:os.system x\n", "not YAML: line 1: could not determine a constructor"),
    ("a: !x 1\n", "not YAML: line 1: could not determine a constructor"),
    ("a: !!timestamp x\n", "not YAML: "),
    ("a: !!int x\n", "invalid literal for int()"),
    ("a: &a [*a]\n", "not YAML: it is nested too deeply"),
    ("a: " + "[" * 600 + "]" * 600 + "\n", "not YAML: it is nested too deeply"),
    ("{a: " * 600 + "1" + "}" * 600, "not YAML: it is nested too deeply"),
    ('{"a": ' * 40_000 + "1" + "}" * 40_000, "not YAML: it is nested too deeply"),
    (_repeated("[{}]"), "it holds more than 100000 values, with those that aliases (*) repeat"),
    (_repeated("{{<<: [{}]}}"), "it holds more than 100000 values, with those that aliases (*) repeat"),
    ("a: " + "9" * 50_000 + "\n", "Exceeds the limit"),
    ("- 1\n", "the top level must be a dictionary, not [1]"),
    ("", "the top level must be a dictionary, not empty"),
    ("# a\n---\n", "the top level must be a dictionary, not empty"),
]


@pytest.mark.parametrize(("text", "message"), STRANGE)
def test_what_a_file_does_not_show_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(ConfigurationError) as error:
        configuration.read(tmp_path / "own.yaml")
    assert time.process_time() - start < 2
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/own.yaml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("depth", [50, 200, 300, 400, 600])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_deep_nesting_is_refused_in_one_line(shipped, tmp_path, depth, pair):
    inner = "a: " if pair == "{}" else ""
    (tmp_path / "own.yaml").write_text("a: " + (pair[0] + inner) * depth + "1" + pair[1] * depth)
    start = time.process_time()
    with pytest.raises(ConfigurationError) as error:
        check({**shipped(), **configuration.read(tmp_path / "own.yaml")})
    assert time.process_time() - start < 2
    assert "\n" not in str(error.value)


PLAIN = """
a: [1, -2, +3, 1.5, .5, 1., 1.0e-6, -1.5E+3, true, False, null, ~, word, "yes", '010', 1e-6, 1_000, 0x10, no way, .nan]
b: &base {x: 1, y: 2}
c: {<<: *base, y: 3}
"""


def test_plain_yaml_is_read_as_by_snakemake_once_numbers_are_read(tmp_path):
    expected = with_numbers(yaml.safe_load(PLAIN))
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "own.yaml").write_text(PLAIN, encoding=encoding)
        assert repr(with_numbers(configuration.read(tmp_path / "own.yaml"))) == repr(expected)  # NaN differs from NaN
    (tmp_path / "own.json").write_text(json.dumps({"a": [1, 1e-6, True]}))
    assert configuration.read(tmp_path / "own.json") == {"a": [1, 1e-6, True]}
    (tmp_path / "own.json").write_text('{\n\t"a": "b\\/c"\n}')  # indented by tabs, as YAML 1.1 forbids
    assert configuration.read(tmp_path / "own.json") == {"a": "b/c"}
    (tmp_path / "own.yaml").write_text(PLAIN, encoding="utf-16")
    with pytest.raises(ConfigurationError, match="it must be text in UTF-8"):
        configuration.read(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "re{s}ults",
            "it's",
            'a"b',
            "~/x",
            "$HOME/x",
            "a\nb",
            "a;b",
            "-x",
            "a*",
            "x&",
            "a\\b",
            "a:b",
            " ",
            "a ",
            "n" * 256,
        ),
        *(".", "", "..", "/", "../..", "src", "src/deepbures", "workflow/x", "config", ".git", ".snakemake/x", "logs"),
        *(
            "results/../src",
            "../results",
            "x/../../y",
            "./docs",
            str(Path.cwd()),
            str(Path.cwd() / "src"),
            str(Path.home().parent),
        ),
    ],
)
def test_folders_that_mean_something_else_are_refused(shipped, path):
    for key in ("results", "figures"):
        with pytest.raises(ConfigurationError, match=rf"^study.{key}: ") as error:
            check(changed(shipped(), f"study.{key}", path))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path", ["x{depth}.npy", "~/x.npy", "$DATA/x.npy", "it's.npy", "a\nb.npy", "`x`.npy", "-x.npy"]
)
def test_target_files_that_mean_something_to_a_shell_are_refused(shipped, path):
    config = changed(shipped(), "experiments.low_rank.target", {"covariance": path})
    with pytest.raises(
        ConfigurationError,
        match=r"^experiments.low_rank.target: .* (holds|not replaced|must not begin|are not replaced)",
    ) as error:
        check(changed(config, "experiments.low_rank.grid.smin", [-1]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path", ["results/größe", "my results/a b", "/tmp/x=1,y@2", "results/", "sources", "logs.d", "a/src"]
)
def test_usual_folders_pass(shipped, path):
    check(changed(shipped(), "study.results", path))


def test_a_billion_seeds_or_cells_are_refused_at_once(shipped):
    start = time.process_time()
    for key, message in (
        ("seeds", "seeds: 1000000000 must be at most 1000000"),
        ("seeds_per_job", "seeds_per_job: 1000000000 must be at most 1000000"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            check(changed(shipped(), C + key, 10**9))
    block = changed(changed(shipped(), C + "seeds", 10**6), C + "seeds_per_job", 1)
    with pytest.raises(
        ConfigurationError, match=r"grid: [0-9,]+ parts, cells times blocks of seeds, are more than 100,000"
    ):
        check(block)
    assert time.process_time() - start < 5  # of which reading what is shipped takes most


# Targets of low rank.


def with_samples(shipped, tmp_path, experiment, samples, **grid):
    np.save(tmp_path / "few samples.npy", samples)
    config = shipped()
    block = config["experiments"][experiment]
    block |= {"dimension": samples.shape[1], "target": {"samples": str(tmp_path / "few samples.npy")}}
    block["grid"] |= {"smin": [-1], **grid}
    config["figures"] = {}
    return config


def test_a_target_without_variance_is_refused_up_front(shipped, tmp_path):
    config = with_samples(shipped, tmp_path, "low_rank", np.full((9, 4), 3.1), rank=[2])
    with pytest.raises(ConfigurationError, match="all samples are equal: their covariance is zero"):
        check(config)


def test_options_of_a_text_file_stand_beside_it(shipped, tmp_path, rng):
    samples = rng.standard_normal((30, 4))
    config = with_samples(shipped, tmp_path, "low_rank", samples, rank=[2])
    target = config["experiments"]["low_rank"]["target"]
    text = "\n".join(";".join(map(repr, row)).replace(".", ",") for row in samples.tolist())
    (tmp_path / "own.csv").write_text(f"0;1;2;3\n{text}\n")
    target |= {"samples": str(tmp_path / "own.csv"), "decimal": ",", "header": 0}
    check(config)
    target |= {"sep": ";", "index_col": None, "skiprows": 0, "encoding": "ascii", "comment": "#"}
    check(config)
    for options, message in (
        ({"decimal": "."}, "'-?[0-9]+,[0-9]+' is no finite number; read with sep: ';'"),
        ({"decimal": "'"}, r"target.decimal: \"'\" is not allowed"),
        ({"header": -1}, "target.header: -1 must be at least 0"),
        ({"header": "infer"}, "target.header: 'infer' must be of type integer"),
        ({"seperator": ";"}, "target: unknown key 'seperator'"),
        ({"dataset": "digits"}, "describes a target completely"),
        ({"samples": None}, "target.samples: None must be of type string"),
    ):
        with pytest.raises(ConfigurationError, match=f"^experiments.low_rank.{message}|{message}"):
            check(changed(config, "experiments.low_rank.target", target | options))
    for others in ({"dataset": "digits"}, {"spectrum": "zipf", "mode": "eigenvalues"}):
        with pytest.raises(ConfigurationError, match=r"target.sep: it says how a file is read; it must stand beside"):
            check(changed(config, "experiments.low_rank.target", {**others, "sep": ";"}))


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("convergence", r"grid.rank: 3 must be at most the rank of the target, 2"),
        ("paths", r"grid.rank\[0\]: 2 must be less than the rank of the target, 2"),
    ],
)
def test_ranks_beyond_those_of_few_samples_are_refused_where_they_make_no_sense(
    shipped, tmp_path, rng, experiment, message
):
    config = with_samples(shipped, tmp_path, experiment, rng.standard_normal((3, 4)), rank=[2, 3])
    with pytest.raises(ConfigurationError, match=message):
        check(config)


# Overlays that point an experiment at a file.


def pointed_at(tmp_path, shipped, matrix, key="covariance", **block):
    """The shipped study with its experiment `low_rank` on a matrix from a file, laid over it as a user writes it."""
    np.save(tmp_path / "mine.npy", matrix)
    config = shipped()
    configuration.lay_over(
        config, {"experiments": {"low_rank": {"target": {key: str(tmp_path / "mine.npy")}, **block}}}
    )
    return config


@pytest.mark.parametrize("key", ["covariance", "samples"])
def test_a_file_replaces_the_whole_target_and_gives_dimension_and_smin(tmp_path, shipped, rng, key):
    samples = rng.standard_normal((50, 7))
    config = pointed_at(tmp_path, shipped, samples if key == "samples" else samples.T @ samples, key)
    config["experiments"]["low_rank"]["grid"]["rank"] = [2, 5]
    config["figures"]["low_rank"]["show"]["smin"] = [0.5]  # of the target that the file replaces
    block = check(config)["experiments"]["low_rank"]
    assert block["target"] == {key: str(tmp_path / "mine.npy")}
    assert (block["dimension"], block["grid"]["smin"]) == (7, [-1])
    # what the overlay itself says of them is checked
    with pytest.raises(ConfigurationError, match="of dimension 7, but the experiment of dimension 6"):
        check(pointed_at(tmp_path, shipped, samples, "samples", dimension=6, grid={"rank": [2]}))
    with pytest.raises(ConfigurationError, match="smin must be"):
        check(pointed_at(tmp_path, shipped, samples, "samples", grid={"rank": [2], "smin": [0.5]}))


def test_a_drawn_target_replaces_a_file_and_one_file_another(tmp_path, shipped):
    config = pointed_at(tmp_path, shipped, np.eye(7), grid={"rank": [2]})
    configuration.lay_over(config, {"experiments": {"low_rank": {"target": {"samples": "other.npy"}}}})
    assert config["experiments"]["low_rank"]["target"] == {"samples": "other.npy"}
    drawn = {"spectrum": "random", "mode": "eigenvalues"}
    configuration.lay_over(config, {"experiments": {"low_rank": {"target": drawn}}})
    assert config["experiments"]["low_rank"]["target"] == drawn
    configuration.lay_over(config, {"experiments": {"low_rank": {"target": {"spectrum": "zipf"}}}})
    assert config["experiments"]["low_rank"]["target"] == {**drawn, "spectrum": "zipf"}


@pytest.mark.parametrize(
    ("matrix", "line"),
    [
        (np.eye(4), "grid.rank: 5, 10 must be at most the dimension, 4"),
        (np.diag([3.0, 2, 1, *[0] * 7]), "grid.rank: 5, 10 must be at most the rank of the target, 3"),
        (np.ones(3), "must hold a matrix"),
    ],
)
def test_what_does_not_fit_a_file_is_refused_in_one_line(tmp_path, shipped, matrix, line):
    with pytest.raises(ConfigurationError) as error:
        check(pointed_at(tmp_path, shipped, matrix))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", [{"covariance": 3}, {"barycenter": [1]}, {"samples": None}, {1: 2}, {}, [], "x"])
@pytest.mark.parametrize("grid", [{"smin": [1]}, []])
def test_whatever_is_laid_over_is_at_most_a_mistake(shipped, target, grid):
    config = changed(shipped(), "experiments.low_rank.grid", grid)
    configuration.lay_over(config, {"experiments": {"low_rank": {"target": target}}})
    with pytest.raises(ConfigurationError):
        check(config)


def test_two_experiments_show_one_family_each_under_its_name(shipped):
    config = shipped()
    config["experiments"]["mine"] = copy.deepcopy(config["experiments"]["low_rank"])
    config["figures"]["mine"] = {**config["figures"]["low_rank"], "family": "low_rank", "experiment": "mine"}
    assert {"low_rank", "mine"} <= check(config)["figures"].keys()


# --- Families of figures ----------------------------------------------------------------------------------------


def test_families_have_their_notebooks_and_captions(shipped):
    assert check_families(FAMILIES) == FAMILIES
    names = [name for family in FAMILIES.values() for name in [*family.get("figures", {}), *family.get("tables", {})]]
    assert len(names) == len(set(names))
    for family in FAMILIES.values():
        for name, about in (family.get("figures", {}) | family.get("tables", {})).items():
            # The report reads it as a template, in reStructuredText, where a list begins with (a) in a line of its own.
            assert not re.search(r"\{[{%#]|^\([a-z]\)[^\n]*$(?!\n)", about.get("caption", "")), name
    for name, family in FAMILIES.items():
        assert (WORKFLOW / f"notebooks/{family.get('notebook', name)}.ipynb").is_file()
    assert shipped().keys() <= {"study", "experiments", "figures"}
    configurations = map(configuration.read, (WORKFLOW.parent / "config").glob("*.yaml"))
    assert set().union(*(config.get("figures", {}) for config in configurations)) == FAMILIES.keys()


def test_every_axis_has_the_type_of_what_it_replaces():
    sections = [item for kind in KINDS for item in kind_of(kind).OPTIONS.items()]
    own = {f"{section}.{name}": key for section, options in sections for name, key in keys_of(options).items()}
    own |= {f"loss_options.{name}": key for name, key in KEYS["loss_options"].type.items()}
    for name, axis in AXES.items():
        assert {**own, **KEYS}[axis.of or name].type is axis.type, name


@pytest.mark.parametrize(
    ("family", "fragments"),
    [
        ({"kinds": ["flow"]}, ["families of figures: mine"]),
        (
            {"kinds": ["flows"], "tables": {"T": {"title": "A table", "source": "ours"}}},
            ["mine.kinds[0]: 'flows' is not allowed, did you mean 'flow'?"],
        ),
        (
            {"kinds": ["flow"], "figures": {"F": {"title": "A figure", "source": "ours"}}, "several": ["dept"]},
            ["mine.several[0]: 'dept' is not allowed, did you mean 'depth'?"],
        ),
        (
            {"kinds": ["flow"], "figures": {"F": {"title": "A figure", "source": "ours"}}, "sevral": []},
            ["unknown key 'sevral', did you mean 'several'?"],
        ),
        ({"figures": {"F": {"title": "A figure", "source": "ours"}}}, ["mine: the key 'kinds' is missing"]),
        ({"kinds": ["flow"], "figures": {}}, ["mine.figures: {} must hold at least 1"]),
    ],
)
def test_a_mistake_in_the_families_is_one_line(family, fragments):
    with pytest.raises(ConfigurationError) as error:
        check_families({"mine": family})
    assert "\n" not in str(error.value)
    assert all(fragment in str(error.value) for fragment in fragments), str(error.value)
