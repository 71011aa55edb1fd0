"""deepbures: generative deep linear networks trained with the Bures-Wasserstein loss.

>>> import numpy as np
>>> from deepbures import BuresWasserstein, gradient_flow
>>> loss = BuresWasserstein(np.diag([4.0, 1.0]), epsilon=0.1)
>>> flow = gradient_flow(loss, initial=np.eye(2), depth=10, times=[0.0, 0.1, 1.0])
>>> flow.stop_reason
<StopReason.END_TIME: 'end time'>
"""

from .gradient_descent import gradient_descent
from .gradient_flow import gradient_flow, gradient_flows
from .initialization import close_start, small_start
from .losses import BuresWasserstein, Frobenius
from .network import DeepLinearNetwork
from .predicted_rates import local_rates, sharp_rate
from .program_constants import paper_constants
from .slopes import authors_slope, tail_slope
from .targets import draw_target
from .trajectory import DescentTrajectory, FlowTrajectory, StopReason, Trajectory

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
