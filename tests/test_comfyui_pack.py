"""The pack of ComfyUI nodes, integrations/comfyui: separable, and what its nodes do."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfyui_peer
import pytest
import torch
from comfyui_cases import network, noise, patched, peer, prompts, sampled

import reg_engine
from reg_engine import Damping, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACK = ROOT / "integrations" / "comfyui"
WORKFLOW = PACK / "example_workflows" / "reg_guidance.json"
CORE = {  # nodes of ComfyUI: inputs and outputs that a workflow can connect
    "CheckpointLoaderSimple": ([], ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": (["clip"], ["CONDITIONING"]),
    "EmptyLatentImage": ([], ["LATENT"]),
    "KSampler": (["model", "positive", "negative", "latent_image"], ["LATENT"]),
    "VAEDecode": (["samples", "vae"], ["IMAGE"]),
    "SaveImage": (["images"], []),
}

pytestmark = pytest.mark.skipif(bool(comfyui_peer.REAL), reason="its folders are its own")


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The pack as ComfyUI imports it: a folder of any name, with its own modules at hand."""
    comfy, samplers = types.ModuleType("comfy"), types.ModuleType("comfy.samplers")
    samplers.calc_cond_batch, samplers.CFGGuider = peer.calc_cond_batch, peer.Guider
    comfy.samplers = samplers
    folders = types.ModuleType("folder_paths")
    folders.models_dir, folders.folder_names_and_paths = str(tmp_path / "models"), {}
    known = folders.folder_names_and_paths
    folders.get_folder_paths = lambda name: known[name][0]

    def listed(name: str) -> list[str]:
        return sorted(p.name for f in known[name][0] for p in Path(f).glob("*.json"))

    def full(name: str, file: str) -> str | None:
        paths = [Path(f) / file for f in known[name][0]]
        return next((str(p) for p in paths if p.exists()), None)

    folders.get_filename_list, folders.get_full_path = listed, full
    modules = {"comfy": comfy, "comfy.samplers": samplers, "folder_paths": folders}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    name = "custom_nodes_reg"
    where = importlib.util.spec_from_file_location(
        name, PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert where is not None and where.loader is not None
    module = importlib.util.module_from_spec(where)
    monkeypatch.setitem(sys.modules, name, module)
    where.loader.exec_module(module)
    yield module
    sys.modules.pop(f"{name}.nodes", None)


def node(pack: Any, name: str) -> Any:
    return pack.NODE_CLASS_MAPPINGS[name]()


def patch(pack: Any, model: Any, **given: Any) -> Any:
    choices = {"enabled": True, "rectify": "auto", "start_percent": 0.0, "end_percent": 1.0}
    return node(pack, "REGGuidance").patch(model, **{**choices, "outside": "CFG", **given})[0]


def plain() -> Any:
    return peer.Patcher(peer.Model(network(), "eps"))


def test_it_needs_nothing_but_comfyui_and_the_engine() -> None:
    allowed = {"reg_engine", "comfy", "folder_paths", "torch", *sys.stdlib_module_names}
    for path in PACK.glob("*.py"):
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(found, ast.Import):
                assert {alias.name.split(".")[0] for alias in found.names} <= allowed
            elif isinstance(found, ast.ImportFrom) and not found.level:
                assert (found.module or "").split(".")[0] in allowed
    files = {p.name for p in PACK.iterdir() if not p.name.startswith("__pycache__")}
    assert {"__init__.py", "nodes.py", "README.md", "LICENSE", "pyproject.toml"} <= files
    assert (PACK / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_what_the_registry_reads() -> None:
    told = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    assert told["project"]["version"] == reg_engine.__version__
    assert told["project"]["dependencies"] == ["reg-engine"]
    assert told["tool"]["comfy"]["DisplayName"] and "comfyui" not in told["project"]["name"]


def test_nodes_say_what_comfyui_asks(pack: Any) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for kind in pack.NODE_CLASS_MAPPINGS.values():
        inputs = kind.INPUT_TYPES()
        names = {name for group in inputs.values() for name in group}
        function = getattr(kind, kind.FUNCTION)
        taken = function.__code__.co_varnames[1 : function.__code__.co_argcount]
        assert names == set(taken) and kind.DESCRIPTION and kind.CATEGORY
        assert len(kind.RETURN_TYPES) == 1
        optional = set(inputs.get("optional", {}))
        assert optional == set(taken[len(taken) - len(function.__defaults__ or ()) :])


def test_a_disabled_node_changes_nothing(pack: Any) -> None:
    model = plain()
    before = dict(model.model_options)
    assert patch(pack, model, enabled=False) is model
    assert patch(pack, model) is not model
    assert model.model_options == before and not model.wrappers  # nor does one that is on


@pytest.mark.parametrize("rectify", ["auto", "vjp", "none"])
def test_the_node_guides(pack: Any, rectify: str, caplog: pytest.LogCaptureFixture) -> None:
    x, name = noise(2), None if rectify == "none" else rectify
    with caplog.at_level("INFO"):
        found = sampled(patch(pack, plain(), rectify=rectify), x)
    assert torch.equal(found, sampled(patched(rectify=name), x))
    assert "REG guidance: " in caplog.text


def test_the_node_tells_its_choices(pack: Any) -> None:
    model = patch(
        pack, plain(), rectify="vjp", start_percent=0.2, end_percent=0.6, outside="no guidance",
        record_gib=1.5,
    )  # fmt: skip
    settings = model.model_options["sampler_pre_cfg_function"][0].__self__.settings
    assert (settings.start, settings.end, settings.outside) == (0.2, 0.6, "no guidance")
    assert settings.memory_budget == 1.5 * 2**30
    with pytest.raises(InputError, match="start"):
        patch(pack, plain(), start_percent=0.6, end_percent=0.2)


def test_a_damping_is_measured_written_read_and_used(pack: Any, tmp_path: Path) -> None:
    latents, (positive, negative) = {"samples": 0.5 * noise(3)}, prompts()
    calibrate = node(pack, "REGGuidanceDampingCalibrate").calibrate
    given = (plain(), [[positive, {}]], [[negative, {}]], latents)
    with torch.inference_mode():
        (made,) = calibrate(*given, "tiny", 2)
        calibrate(*given, "tiny", 2)
    folder = tmp_path / "models" / "reg_damping"
    assert sorted(p.name for p in folder.iterdir()) == ["tiny.json", "tiny_2.json"]
    load = node(pack, "REGGuidanceDampingLoad")
    assert load.INPUT_TYPES()["required"]["file"] == (["tiny.json", "tiny_2.json"],)
    (read,) = load.load("tiny.json")
    assert isinstance(read, Damping) and read.factors == made.factors
    assert load.IS_CHANGED("tiny.json") > 0 and load.IS_CHANGED("none.json") == 0
    x = noise(1)
    found = sampled(patch(pack, plain(), damping=read), x)
    assert torch.equal(found, sampled(patched(damping=made), x))
    with pytest.raises(InputError, match="file"):
        load.load("none.json")
    for name in ("../tiny", "a/b", "", ".hidden", "tiny\n"):
        with pytest.raises(InputError, match="name"):
            calibrate(*given, name, 2)


def test_the_workflow_fits_the_nodes(pack: Any) -> None:
    """Every link joins an output and an input of one type; there is a value for every widget."""
    told = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    nodes = {one["id"]: one for one in told["nodes"]}
    assert {one["type"] for one in nodes.values()} - set(CORE) == {
        "REGGuidance",
        "REGGuidanceDampingLoad",
    }
    for number, source, out, target, slot, kind in told["links"]:
        given, taken = nodes[source]["outputs"][out], nodes[target]["inputs"][slot]
        assert given["type"] == taken["type"] == kind
        assert number in given["links"] and taken["link"] == number
    for one in nodes.values():
        names = [socket["name"] for socket in one.get("inputs", [])]
        types_out = [socket["type"] for socket in one.get("outputs", [])]
        if one["type"] in CORE:
            assert (names, types_out) == CORE[one["type"]]
            continue
        kind = pack.NODE_CLASS_MAPPINGS[one["type"]]
        inputs = {k: v for group in kind.INPUT_TYPES().values() for k, v in group.items()}
        sockets = [k for k, v in inputs.items() if v[0] in ("MODEL", "REG_DAMPING")]
        assert names == sockets and types_out == list(kind.RETURN_TYPES)
        assert len(one["widgets_values"]) == len(inputs) - len(sockets)
