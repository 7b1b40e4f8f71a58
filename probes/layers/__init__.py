"""Label-free metrics of a layer's states: plain functions on arrays, registered once, and one table over all layers."""

from __future__ import annotations

from probes.layers.anisotropy import anisotropy
from probes.layers.block_influence import block_influence
from probes.layers.centroid import centroid_distance
from probes.layers.cka import cka, cka_matrix
from probes.layers.coding_rate import coding_rate
from probes.layers.curvature import curvature
from probes.layers.dc_share import dc_share
from probes.layers.dime import dime
from probes.layers.effective_rank import effective_rank, effective_rank_uncentred
from probes.layers.entropy import dataset_entropy
from probes.layers.frequency_gain import frequency_gains, high_frequency_gain
from probes.layers.infonce import infonce
from probes.layers.intrinsic_dimension import intrinsic_dimension
from probes.layers.lidar import lidar
from probes.layers.measure import measure_layers, measure_views
from probes.layers.prompt_entropy import prompt_entropy, prompt_entropy_without_first
from probes.layers.smoothness import smoothness
from probes.layers.spectra import spectra, spectrum
from probes.layers.spectral import isoscore, participation_ratio, spectral_entropy_rank, top_share
from probes.layers.temperature import temperature
from probes.layers.tokens import token_metrics
from probes.layers.uniformity import alignment, uniformity

__all__ = [
    "alignment",
    "anisotropy",
    "block_influence",
    "centroid_distance",
    "cka",
    "cka_matrix",
    "coding_rate",
    "curvature",
    "dataset_entropy",
    "dc_share",
    "dime",
    "effective_rank",
    "effective_rank_uncentred",
    "frequency_gains",
    "high_frequency_gain",
    "infonce",
    "intrinsic_dimension",
    "isoscore",
    "lidar",
    "measure_layers",
    "measure_views",
    "participation_ratio",
    "prompt_entropy",
    "prompt_entropy_without_first",
    "smoothness",
    "spectra",
    "spectral_entropy_rank",
    "spectrum",
    "temperature",
    "token_metrics",
    "top_share",
    "uniformity",
]
