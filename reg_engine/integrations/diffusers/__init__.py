"""REG inside diffusers' own pipelines: `with reg(pipe, rectify=...): pipe(...)`."""

from .hook import Hook
from .switch import disable, enable, reg

__all__ = ["Hook", "disable", "enable", "reg"]
