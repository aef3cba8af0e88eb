"""The nodes: what a workflow says, handed to reg_engine.integrations.comfyui."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import comfy.samplers
import folder_paths
import torch

from reg_engine import Damping, InputError
from reg_engine.integrations.comfyui import Calibrator, Settings, attach
from reg_engine.rectifiers import RECTIFIERS

FOLDER = "reg_damping"  # below ComfyUI's models
CATEGORY = "sampling/guidance"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

if FOLDER not in folder_paths.folder_names_and_paths:
    _path = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.folder_names_and_paths[FOLDER] = ([_path], {".json"})


class REGGuidance:
    """Rectified gradient guidance at the sampler's own cfg."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Rectified gradient guidance (REG, arXiv 2501.18865): the sampler's cfg stays the scale. "
        "auto needs fewer evaluations than plain CFG."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        says = {
            "enabled": "Off: the model passes through as it is.",
            "rectify": "How K delta is estimated. none is plain CFG; paper, vjp and diagonal need "
            "memory for gradients.",
            "outside": "Before start_percent and after end_percent.",
            "damping": "A calibrated table in the place of the estimator: CFG's evaluations.",
            "record_gib": "Memory that gradients may take (paper, vjp, diagonal), in GiB; above, "
            "blocks are computed twice. 0: no limit.",
        }
        return {
            "required": {
                "model": ("MODEL",),
                "enabled": ("BOOLEAN", {"default": True, "tooltip": says["enabled"]}),
                "rectify": (["auto", *RECTIFIERS, "none"], {"tooltip": says["rectify"]}),
                "start_percent": ("FLOAT", {"default": 0.0, **share}),
                "end_percent": ("FLOAT", {"default": 1.0, **share}),
                "outside": (["CFG", "no guidance"], {"tooltip": says["outside"]}),
            },
            "optional": {
                "damping": ("REG_DAMPING", {"tooltip": says["damping"]}),
                "record_gib": (
                    "FLOAT",
                    {"default": 0.0, "min": 0.0, "max": 1024.0, "tooltip": says["record_gib"]},
                ),
            },
        }

    def patch(
        self,
        model: Any,
        enabled: bool,
        rectify: str,
        start_percent: float,
        end_percent: float,
        outside: str,
        damping: Damping | None = None,
        record_gib: float = 0.0,
    ) -> tuple[Any]:
        if not enabled:
            return (model,)
        settings = Settings(
            rectify=None if rectify == "none" else rectify,
            start=start_percent,
            end=end_percent,
            outside=outside,
            damping=damping,
            memory_budget=record_gib * 2**30 or None,
        )
        return (attach(model, settings, comfy.samplers.calc_cond_batch, _tell),)


def _tell(stats: Any) -> None:
    work = f"{stats.nfe} evaluations and {stats.backward} backward passes a sample"
    logging.info("REG guidance: %s, %s, steps %s", stats.estimator, work, stats.modes)


class GuidanceDampingLoad:
    """A calibrated damping from models/reg_damping."""

    RETURN_TYPES = ("REG_DAMPING",)
    RETURN_NAMES = ("damping",)
    FUNCTION = "load"
    CATEGORY = CATEGORY
    DESCRIPTION = "A damping that was measured before: by its node, or `reg-engine calibrate`."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"file": (folder_paths.get_filename_list(FOLDER),)}}

    @classmethod
    def IS_CHANGED(cls, file: str) -> float:
        path = folder_paths.get_full_path(FOLDER, file)
        return os.path.getmtime(path) if path else 0.0

    def load(self, file: str) -> tuple[Damping]:
        path = folder_paths.get_full_path(FOLDER, file)
        if path is None:
            raise InputError(
                "file", f"{file!r} is not in models/{FOLDER}", "Choose one of the list"
            )
        return (Damping.load(path),)


class GuidanceDampingCalibrate:
    """Measures a damping on clean latents, and writes it into models/reg_damping."""

    RETURN_TYPES = ("REG_DAMPING",)
    RETURN_NAMES = ("damping",)
    FUNCTION = "calibrate"
    CATEGORY = CATEGORY
    OUTPUT_NODE = True
    DESCRIPTION = (
        "REG's mean effect at each noise level, measured on a batch of clean latents that fit the "
        "positive prompt: a dozen or more. 48 evaluations a latent, once for a model."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latents": ("LATENT",),
                "name": ("STRING", {"default": "damping"}),
                "batch_size": ("INT", {"default": 4, "min": 1, "max": 4096}),
            }
        }

    def calibrate(
        self,
        model: Any,
        positive: Any,
        negative: Any,
        latents: dict[str, Any],
        name: str,
        batch_size: int,
    ) -> tuple[Damping]:
        if not NAME.fullmatch(name):
            problem = f"is {name!r}"
            raise InputError("name", problem, "Give letters, digits, '.', '_' and '-', no folders")
        clean = latents["samples"]
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        calibrator = Calibrator(comfy.samplers.calc_cond_batch, batch_size=batch_size)
        sigmas = torch.tensor([1.0, 0.0])  # none is sampled at
        guider.sample(torch.zeros_like(clean), clean, calibrator, sigmas, disable_pbar=True, seed=0)
        assert calibrator.damping is not None  # or it had raised
        path = _free(Path(folder_paths.get_folder_paths(FOLDER)[0]), name)
        calibrator.damping.save(path)
        logging.info("REG guidance: %r, written to %s", calibrator.damping, path)
        return (calibrator.damping,)


def _free(folder: Path, name: str) -> Path:
    """A file that is not there yet: name.json, name_2.json, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    number, path = 1, folder / f"{name}.json"
    while path.exists():
        number += 1
        path = folder / f"{name}_{number}.json"
    return path


NODE_CLASS_MAPPINGS = {
    "REGGuidance": REGGuidance,
    "REGGuidanceDampingLoad": GuidanceDampingLoad,
    "REGGuidanceDampingCalibrate": GuidanceDampingCalibrate,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "REGGuidance": "REG guidance",
    "REGGuidanceDampingLoad": "Guidance damping (load)",
    "REGGuidanceDampingCalibrate": "Guidance damping (calibrate)",
}
