"""Functions with their derivatives along tangents: attention, norms and activations in one call."""

from __future__ import annotations

from .door import activation_dual, attention_dual, norm_dual

__all__ = ["activation_dual", "attention_dual", "norm_dual"]
