"""Training for exits: losses that make early layers and few coordinates useful, judged on held-out data."""

from __future__ import annotations

from probes.exits.training.losses import LOSSES, StarbucksLoss, starbucks_pairs
from probes.exits.training.rows import TrainingRows, training_rows
from probes.exits.training.train import Trained, TrainPlan, train_exits

__all__ = [
    "LOSSES",
    "StarbucksLoss",
    "TrainPlan",
    "Trained",
    "TrainingRows",
    "starbucks_pairs",
    "train_exits",
    "training_rows",
]
