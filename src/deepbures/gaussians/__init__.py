"""Gaussians by mean and covariance: distances, transport maps and geodesics, at any rank."""
