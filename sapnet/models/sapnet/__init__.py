"""The spatially-attentive patch-hierarchical network."""

from sapnet.models.sapnet.network import SAPNet
from sapnet.models.sapnet.stage import Stage, StageWidths

__all__ = ["SAPNet", "Stage", "StageWidths"]
