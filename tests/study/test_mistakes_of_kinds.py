"""Mistakes in the blocks of the kinds that are not in the default study, each reported in one line."""

import functools
import operator

import pytest

from deepbures.study import configuration

#: By the configuration that has the experiments: experiment, key, wrong value, and what the message says of it.
MISTAKES = {
    "neighbours.yaml": [
        ("scaled", "target.spectrum", "zipf", "kind 'scaled' needs geometric, not 'zipf'"),
        ("scaled", "grid.epsilon", [0.1], "grid.epsilon: kind 'scaled' needs 0, not 0.1"),
        ("scaled", "landscape.target_ranks", [21], "21 must be at most the dimension, 20"),
        ("scaled", "landscape.conditions", [0.5], "must be at least 1"),
        ("scaled", "landscape.start_kinds", ["gauss"], "'gauss' is not allowed"),
        ("barycenter", "loss", "frobenius", "kind 'barycenter' needs bures-wasserstein, not 'frobenius'"),
        (
            "barycenter",
            "landscape",
            {"starts": 5, "max_steps": 9, "covariances": 3},
            "landscape.spreads: the key is missing",
        ),
        ("barycenter", "landscape.spreads", [-1], "-1 must be at least 0"),
        ("barycenter", "target", {"covariance": "x.npy"}, "kind 'barycenter' has no such target; allowed: barycenter"),
        ("barycenter", "target", {"barycenter": {"covariances": ["~/x.npy"]}}, "~ and $ are not replaced"),
        (
            "barycenter",
            "target",
            {"barycenter": {"covariances": ["absent.npy"]}},
            "target: absent.npy: there is no such file",
        ),
        ("barycenter", "target", {"barycenter": {"covariances": []}}, "must hold at least 1 value"),
        ("barycenter", "target", {"barycenter": {"files": ["x.npy"]}}, "unknown key 'files'"),
        ("barycenter", "target", {"barycenter": {}}, "exactly one of the keys 'covariances' and 'samples' is needed"),
        ("barycenter", "target", {"spectrum": "spread", "barycenter": {}}, "leave the other keys out"),
        (
            "sparse",
            "target",
            {"barycenter": {"covariances": ["x.npy"]}},
            "kind 'sparse' has no such target; allowed: drawn",
        ),
        ("sparse", "grid.depth", [2], "grid.depth: kind 'sparse' needs 1, not 2"),
        ("sparse", "grid.rank", [51], "51 must be at most the dimension, 50"),
        ("sparse", "landscape.corrupted", [1.5], "1.5"),
        ("sparse", "landscape.condition", 0.5, "0.5 must be at least 1"),
        ("sensing", "landscape.copies", [-1], "-1 must be at least 0"),
        ("sensing", "landscape.measurements", 0, "0 must be at least 1"),
        ("sensing", "grid.rank", [11], "11 must be at most the dimension, 10"),
    ],
    "beyond.yaml": [
        ("minibatch", "landscape.batches", [7], "7 must be even and at least twice the dimension, 6"),
        ("minibatch", "landscape.batches", [4], "4 must be even"),
        ("minibatch", "grid.rank", [2], "grid.rank: kind 'minibatch' needs 3, not 2"),
        ("smoothing", "grid.epsilon", [0.1], "grid.epsilon: kind 'smoothing' needs 0, not 0.1"),
        ("smoothing", "loss", "frobenius", "kind 'smoothing' needs bures-wasserstein, not 'frobenius'"),
        ("sinkhorn_flow", "grid.blur", [0], "grid.blur[0]: 0 must be more than 0"),
        ("sinkhorn_flow", "loss_options", {"blur": 1}, "grid.blur: loss_options.blur is given too"),
        ("sinkhorn_flow", "loss_options", {"blurr": 1}, "unknown key 'blurr', did you mean 'blur'?"),
    ],
}


@pytest.mark.parametrize("overlay", MISTAKES)
def test_the_blocks_have_no_mistake(shipped, overlay):
    configuration.check(shipped(overlay))


@pytest.mark.parametrize(
    ("overlay", "experiment", "key", "value", "message"),
    [(overlay, *mistake) for overlay, mistakes in MISTAKES.items() for mistake in mistakes],
)
def test_mistakes_give_one_line(shipped, overlay, experiment, key, value, message):
    config = shipped(overlay)
    *sections, last = key.split(".")
    functools.reduce(operator.getitem, sections, config["experiments"][experiment])[last] = value
    with pytest.raises(configuration.ConfigurationError, match=r"^[^\n]*$") as error:
        configuration.check(config)
    assert message in str(error.value)
