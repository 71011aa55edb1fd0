"""A statement about the records: numbers that are computed apart agree."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from .evidence import Statement, Study, keys_of, with_runs
from .mutation import Mutation, shifted

#: An excess loss below this fraction of its unit is compared in that unit, because the loss itself is rounded.
_SMALL = 1e-6


def _consistent(study: Study) -> Iterator[pd.DataFrame]:
    columns = ["loss", "excess", "covariance_distance", "numerical_rank"]
    for kind in ("flow", "descent", "layers"):
        for runs, trajectories in study.training(kind, columns):
            ended = runs[runs["stop_reason"] != StopReason.DIVERGED]
            ended = ended.assign(unit=np.maximum(ended["energy_levels"].str[0], ended["loss_initial"]))
            records = with_runs(trajectories, ended, ["loss_minimum", "unit"])
            if records.empty:
                continue
            rank = np.maximum(records["numerical_rank"] - records["rank"], 0)
            yield records.assign(deviation=np.maximum(rank, _excess_off(records, "loss", "excess")))
            last = records.drop_duplicates(keys_of(records), keep="last")
            ended = ended.merge(last[[*keys_of(records), "excess", "covariance_distance"]])
            off = [
                _excess_off(ended, "loss_initial", "excess_initial"),
                _excess_off(ended, "value_final", "excess_final"),
                (ended["excess_final"] - ended["excess"]).abs() / ended["excess"].where(ended["excess"] > 0, 1),
                _spectrum_off(ended),
            ]
            yield ended.assign(deviation=np.max(off, axis=0))


def _excess_off(table: pd.DataFrame, loss: str, excess: str) -> pd.Series:
    """Difference of the excess loss and L − L*, relative to the excess."""
    difference = (table[loss] - table["loss_minimum"] - table[excess]).abs()
    return difference / np.maximum(table[excess], _SMALL * table["unit"])


def _spectrum_off(runs: pd.DataFrame) -> pd.Series:
    """How much further the eigenvalues of S are from those of the optimum than S itself: never, in λ_1."""
    target, final = np.vstack(runs["eigenvalues_target"]), np.vstack(runs["eigenvalues_final"])
    retained = np.arange(target.shape[1]) < runs["rank"].to_numpy()[:, None]
    optimum = np.where(retained, np.maximum(target - runs["epsilon_effective"].to_numpy()[:, None], 0), 0)
    distance = np.linalg.norm(final - optimum, axis=1) - runs["covariance_distance"]
    return np.maximum(distance, 0) / runs["lambda_max"]


CONSISTENT = Statement(
    name="consistent records",
    statement="The numbers that are recorded of a run agree with each other: the excess loss is the loss less its "
    "minimum, the last record is that of the run, W has rank at most k, and the spectrum of S is as far from that of "
    "the optimum as S at most",
    formula="E = L(W) − L*, rank W ≤ k, ‖λ(S) − λ(S*)‖ ≤ ‖S − S*‖_F",
    test="Every record and the start and end of every run that did not diverge; the loss at the end is computed "
    "without L*. Below 1e-6 of the loss at W = 0 (or at the start where that is larger) the excess is compared in that "
    "unit: there the rounding of the loss hides it.",
    unit="the excess, λ_1, or the rank",
    tolerance=1e-6,
    mutations=(
        Mutation("excess at the end", "runs", "excess_final", 0.05),
        Mutation("excess along a run", "trajectories", "excess", 0.05),
        Mutation("minimum of the loss", "runs", "loss_minimum", 1e-3),
        Mutation("rank", "trajectories", "numerical_rank", 1, shifted(), "", (1,)),
        Mutation("spectrum of S", "runs", "eigenvalues_final", 1e-3),
    ),
    cases=_consistent,
)
