"""Options of a gradient flow, checked once and then constant."""

from dataclasses import dataclass

import numpy as np

from ..linalg.psd import Array
from ..model.network import check_depth
from ..process.progress import Report

#: What `method` may be.
METHODS = ("auto", "explicit")
#: Floor of the error allowed in a step, relative to the Frobenius norm of the state.
ROUNDING = 100 * float(np.finfo(float).eps)


@dataclass(frozen=True)
class FlowOptions:
    """Options of a gradient flow that all starts of a stack share; `gradient_flow` says what they mean.

    Raises
    ------
    ValueError
        On an option that is out of range.
    """

    depth: int
    times: Array | None = None
    rank: int | None = None
    rtol: float = 1e-7
    atol: float = 0.0
    excess_tolerance: float = 0.0
    max_steps: int = 20_000
    samples: int = 100
    method: str = "auto"
    report: Report | None = None

    def __post_init__(self) -> None:
        """Check every option."""
        check_depth(self.depth)
        if not 0 < self.rtol < 1 or not self.atol >= 0:
            raise ValueError(f"rtol must be between 0 and 1 and atol not negative, not {self.rtol} and {self.atol}")
        if not self.excess_tolerance >= 0:
            raise ValueError(f"excess_tolerance must not be negative, not {self.excess_tolerance}")
        steps, samples = float(self.max_steps), float(self.samples)
        if not (steps >= 1 and samples >= 2 and steps.is_integer() and samples.is_integer()):
            raise ValueError(
                "max_steps must be an integer of at least 1 and samples one of at least 2, "
                f"not {self.max_steps} and {self.samples}"
            )
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.times is not None and (self.times.ndim != 1 or self.times[0] < 0 or np.any(np.diff(self.times) <= 0)):
            raise ValueError("times must be increasing and not negative")
