"""REG guidance for ComfyUI: put this folder, or a link to it, into ComfyUI/custom_nodes.

It needs reg_engine in ComfyUI's own environment, which does the work.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
