"""The folder that is imported as `reg_engine.kernels`: fused operations for accelerators.

It stands at the top of the repository, mapped into the package by `pyproject.toml`, and is reached
through `reg_engine` alone. From the root of a checkout `import kernels` would find this folder too,
under a second name: every module would exist twice, and another distribution called `kernels`
would be shadowed. So that import is refused.
"""

from __future__ import annotations

if __name__ == "kernels":
    raise ImportError("this folder is imported as reg_engine.kernels, not as kernels")
