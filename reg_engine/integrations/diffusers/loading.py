"""Pipelines by folder or hub id: safetensors only, and no code but that of diffusers."""

from __future__ import annotations

from typing import Any

from ...adapters.loading import checked_name, named_remedy
from ...errors import InputError

__all__ = ["load_pipeline"]


def load_pipeline(name: str, **options: Any) -> Any:
    """The pipeline of a folder that `save_pretrained` wrote, or of a hub id "owner/name".

    Args:
        options: keywords of `DiffusionPipeline.from_pretrained`: torch_dtype, variant, revision,
            local_files_only, cache_dir, token.

    Raises:
        InputError: no such folder or id, nothing that can be loaded, or other code would have to
            run.
    """
    checked_name(name)
    from diffusers import DiffusionPipeline

    try:
        return DiffusionPipeline.from_pretrained(
            name, use_safetensors=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, AttributeError, ImportError) as error:
        problem = f"{name!r} cannot be loaded ({' '.join(str(error).split())[:300]})"
        raise InputError("model", problem, named_remedy(name)) from error
