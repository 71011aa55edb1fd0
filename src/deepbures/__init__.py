"""deepbures: generative deep linear networks trained with the Bures-Wasserstein loss.

>>> import numpy as np
>>> from deepbures import BuresWasserstein, gradient_flow
>>> loss = BuresWasserstein(np.diag([4.0, 1.0]), epsilon=0.1)
>>> flow = gradient_flow(loss, initial=np.eye(2), depth=10, times=[0.0, 0.1, 1.0])
>>> flow.stop_reason
<StopReason.END_TIME: 'end time'>
"""

from .descent.gradient_descent import gradient_descent
from .descent.scaled_descent import nystrom_start, scaled_descent
from .files.targets import read_target
from .flow.gradient_flow import gradient_flow, gradient_flows
from .gaussians.covariances import LowRankCovariance, sample_moments
from .gaussians.distances import frechet_distance, geodesic, squared_distance, transport_map
from .landscape.critical_points import CriticalPoint, critical_points
from .landscape.curvature import hessian, network_hessian
from .losses.registry import BuresWasserstein, Frobenius, Sinkhorn
from .model.network import DeepLinearNetwork
from .model.starts import aligned_start, close_start, small_start
from .model.targets import draw_target
from .model.trajectory import DescentTrajectory, FlowTrajectory, StopReason, Trajectory
from .neighbours.barycenter import Barycenter, barycenter
from .rates.measured import authors_slope, tail_slope
from .rates.plateau_times import half_times
from .rates.predicted import local_rates, rates_at_minimum, sharp_rate
from .rates.program_constants import program_constants
from .rates.sampling import expected_sampling_error

__version__ = "0.2.0"

__all__ = [
    "Barycenter",
    "BuresWasserstein",
    "CriticalPoint",
    "DeepLinearNetwork",
    "DescentTrajectory",
    "FlowTrajectory",
    "Frobenius",
    "LowRankCovariance",
    "Sinkhorn",
    "StopReason",
    "Trajectory",
    "aligned_start",
    "authors_slope",
    "barycenter",
    "close_start",
    "critical_points",
    "draw_target",
    "expected_sampling_error",
    "frechet_distance",
    "geodesic",
    "gradient_descent",
    "gradient_flow",
    "gradient_flows",
    "half_times",
    "hessian",
    "local_rates",
    "network_hessian",
    "nystrom_start",
    "program_constants",
    "rates_at_minimum",
    "read_target",
    "sample_moments",
    "scaled_descent",
    "sharp_rate",
    "small_start",
    "squared_distance",
    "tail_slope",
    "transport_map",
]
