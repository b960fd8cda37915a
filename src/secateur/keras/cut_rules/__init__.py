"""The rule table, filled: importing this package imports every family of rules."""

from __future__ import annotations

from secateur.keras.cut_rules import (  # noqa: F401
    attention,
    convolution,
    elementwise,
    linear,
    merging,
    normalization,
    opening,
    pooling,
    products,
    recurrent,
    shaping,
)
from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.cut_rules.table import find, is_leaf, opener_of, register_rule

__all__ = ["Kept", "Site", "find", "is_leaf", "opener_of", "register_rule"]
