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
from .gaussians.covariances import LowRankCovariance, sample_moments
from .gaussians.distances import frechet_distance, geodesic, squared_distance, transport_map
from .losses.registry import BuresWasserstein, Frobenius
from .model.network import DeepLinearNetwork
from .model.starts import close_start, small_start
from .model.targets import draw_target
from .model.trajectory import DescentTrajectory, FlowTrajectory, StopReason, Trajectory
from .neighbours.barycenter import barycenter
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
    "LowRankCovariance",
    "StopReason",
    "Trajectory",
    "authors_slope",
    "barycenter",
    "close_start",
    "draw_target",
    "frechet_distance",
    "geodesic",
    "gradient_descent",
    "gradient_flow",
    "gradient_flows",
    "local_rates",
    "paper_constants",
    "sample_moments",
    "sharp_rate",
    "small_start",
    "squared_distance",
    "tail_slope",
    "transport_map",
]
