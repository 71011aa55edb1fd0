"""deepbures: generative deep linear networks trained with the Bures-Wasserstein loss.

>>> import numpy as np
>>> from deepbures import BuresWasserstein, gradient_flow
>>> loss = BuresWasserstein(np.diag([4.0, 1.0]), epsilon=0.1)
>>> flow = gradient_flow(loss, initial=np.eye(2), depth=10, times=[0.0, 0.1, 1.0])
>>> flow.stop_reason
<StopReason.END_TIME: 'end time'>
"""

from .descent.gradient_descent import gradient_descent
from .flow.gradient_flow import gradient_flow, gradient_flows
from .losses.registry import BuresWasserstein, Frobenius
from .model.network import DeepLinearNetwork
from .model.starts import close_start, small_start
from .model.targets import draw_target
from .model.trajectory import DescentTrajectory, FlowTrajectory, StopReason, Trajectory
from .rates.measured import authors_slope, tail_slope
from .rates.predicted import local_rates, sharp_rate
from .rates.program_constants import paper_constants

__version__ = "0.1.0"

__all__ = [
    "BuresWasserstein",
    "DeepLinearNetwork",
    "DescentTrajectory",
    "FlowTrajectory",
    "Frobenius",
    "StopReason",
    "Trajectory",
    "authors_slope",
    "close_start",
    "draw_target",
    "gradient_descent",
    "gradient_flow",
    "gradient_flows",
    "local_rates",
    "paper_constants",
    "sharp_rate",
    "small_start",
    "tail_slope",
]
