"""REG in ComfyUI's samplers, by the hooks of its models; `integrations/comfyui/` holds the nodes.

Nothing of ComfyUI is imported: what is needed of it (`calc_cond_batch`) is handed over.
"""

from __future__ import annotations

from .calibration import Calibrator
from .hook import Hook, Settings, attach

__all__ = ["Calibrator", "Hook", "Settings", "attach"]
