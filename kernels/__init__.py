"""The folder that is imported as `reg_engine.kernels`: fused operations for accelerators.

It stands at the top of the repository, mapped into the package by `pyproject.toml`, and is reached
through `reg_engine` alone. From the root of a checkout `import kernels` finds this folder too. It
is empty then: or every module would exist twice, under two names. Libraries that look for another
distribution of that name see version 0, and go on without it.
"""

from __future__ import annotations

if __name__ == "kernels":
    __version__ = "0"
    __path__ = []  # no submodules under this name

    def __getattr__(name: str) -> object:
        raise AttributeError(f"kernels.{name}: this folder is imported as reg_engine.kernels")
