"""Writes the example workflow of the ComfyUI pack, and draws docs/images/comfyui.png of it.

python docs/comfyui_workflow.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / "integrations" / "comfyui" / "example_workflows" / "reg_guidance.json"
PICTURE = ROOT / "docs" / "images" / "comfyui.png"

COLOURS = {
    "MODEL": "#7c6fd0",
    "CLIP": "#c9a100",
    "VAE": "#c0504d",
    "CONDITIONING": "#d9862b",
    "LATENT": "#c65fa8",
    "IMAGE": "#3f7fbf",
    "REG_DAMPING": "#2a8f5b",
}
# id: (type, title, place, size, inputs, outputs, widgets)
NODES: dict[int, tuple[Any, ...]] = {
    1: (
        "CheckpointLoaderSimple", "Load Checkpoint", (0, 60), (250, 110), [],
        ["MODEL", "CLIP", "VAE"], ["sd15.safetensors"],
    ),
    2: (
        "CLIPTextEncode", "positive", (300, 290), (250, 110), [("clip", "CLIP")],
        ["CONDITIONING"], ["a lighthouse in a storm, oil painting"],
    ),
    3: (
        "CLIPTextEncode", "negative", (300, 440), (250, 110), [("clip", "CLIP")],
        ["CONDITIONING"], ["blurry, low quality"],
    ),
    4: (
        "REGGuidanceDampingLoad", "Guidance damping (load)", (0, 250), (250, 80), [],
        ["REG_DAMPING"], ["damping.json"],
    ),
    5: (
        "REGGuidance", "REG guidance", (300, 0), (250, 220),
        [("model", "MODEL"), ("damping", "REG_DAMPING")], ["MODEL"],
        [True, "auto", 0.0, 1.0, "CFG", 0.0],
    ),
    6: (
        "EmptyLatentImage", "Empty Latent Image",
        (300, 590), (250, 130), [], ["LATENT"],
        [512, 512, 1],
    ),
    7: (
        "KSampler", "KSampler", (610, 100), (250, 290),
        [
            ("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"),
            ("latent_image", "LATENT"),
        ],
        ["LATENT"], [0, "randomize", 20, 6.0, "dpmpp_2m", "karras", 1.0],
    ),
    8: (
        "VAEDecode", "VAE Decode", (910, 60), (170, 80), [("samples", "LATENT"), ("vae", "VAE")],
        ["IMAGE"], [],
    ),
    9: ("SaveImage", "Save Image", (1130, 60), (160, 80), [("images", "IMAGE")], [], ["REG"]),
}  # fmt: skip
NAMES = {
    "CheckpointLoaderSimple": ["checkpoint"],
    "CLIPTextEncode": ["text"],
    "REGGuidanceDampingLoad": ["file"],
    "REGGuidance": [
        "enabled", "rectify", "start_percent", "end_percent", "outside", "record_gib",
    ],
    "EmptyLatentImage": ["width", "height", "batch_size"],
    "KSampler": [
        "seed", "after", "steps", "cfg", "sampler", "scheduler", "denoise",
    ],
    "SaveImage": ["prefix"],
}  # fmt: skip
# from node, its output, to node, its input
LINKS = [
    (1, 0, 5, 0),
    (1, 1, 2, 0),
    (1, 1, 3, 0),
    (5, 0, 7, 0),
    (2, 0, 7, 1),
    (3, 0, 7, 2),
    (6, 0, 7, 3),
    (7, 0, 8, 0),
    (1, 2, 8, 1),
    (8, 0, 9, 0),
]


def workflow() -> dict[str, Any]:
    """In the format that ComfyUI's editor saves and loads."""
    links = [[n, a, out, b, slot, NODES[a][5][out]] for n, (a, out, b, slot) in enumerate(LINKS, 1)]
    nodes = []
    for order, (number, (kind, title, place, size, ins, outs, values)) in enumerate(NODES.items()):
        into = {link[4]: link[0] for link in links if link[3] == number}
        inputs = [{"name": n, "type": t, "link": into.get(i)} for i, (n, t) in enumerate(ins)]
        outputs = [
            {"name": t, "type": t, "links": [k[0] for k in links if k[1:3] == [number, i]]}
            for i, t in enumerate(outs)
        ]
        node = {"id": number, "type": kind, "title": title, "pos": list(place)}
        node |= {"size": list(size), "flags": {}, "order": order}
        node["mode"] = 2 if kind == "REGGuidanceDampingLoad" else 0  # muted: auto needs none
        node |= {"inputs": inputs, "outputs": outputs, "properties": {}, "widgets_values": values}
        nodes.append(node)
    told = {"last_node_id": len(NODES), "last_link_id": len(links), "nodes": nodes}
    return {**told, "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4}


def socket(number: int, index: int, out: bool) -> tuple[float, float]:
    """Where an input or an output is drawn."""
    _, _, (x, y), (width, _), *_ = NODES[number]
    return (x + width if out else x), y + 38 + 19 * index


def draw() -> None:
    """The graph, as the editor shows it."""
    figure, axes = plt.subplots(figsize=(11.5, 6.6))
    for a, out, b, slot in LINKS:
        (x, y), (u, v) = socket(a, out, True), socket(b, slot, False)
        steps = [i / 40 for i in range(41)]
        pull = max(40.0, abs(u - x) / 2)
        cubic = [((1 - s) ** 3, 3 * s * (1 - s) ** 2, 3 * s * s * (1 - s), s**3) for s in steps]
        xs = [k[0] * x + k[1] * (x + pull) + k[2] * (u - pull) + k[3] * u for k in cubic]
        ys = [(k[0] + k[1]) * y + (k[2] + k[3]) * v for k in cubic]
        axes.plot(xs, ys, color=COLOURS[NODES[a][5][out]], lw=2, zorder=1)
    for number, (kind, title, (x, y), (width, height), ins, outs, values) in NODES.items():
        ours = kind.startswith("REG")
        edge = COLOURS["REG_DAMPING"] if ours else "#8a8f98"
        box = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=8")
        box.set(facecolor="#f4faf6" if ours else "#f6f7f9", edgecolor=edge, lw=1.8, zorder=2)
        axes.add_patch(box)
        axes.text(x + 10, y + 15, title, weight="bold", size=9, va="center", zorder=3)
        for out, sockets in ((False, [t for _, t in ins]), (True, outs)):
            for i, told in enumerate(sockets):
                u, v = socket(number, i, out)
                axes.plot(u, v, "o", color=COLOURS[told], ms=7, zorder=4)
                label = told if out else ins[i][0]
                side = {"ha": "right"} if out else {"ha": "left"}
                axes.text(u + (-10 if out else 10), v, label, size=8, va="center", zorder=3, **side)
        below = y + 38 + 19 * max(len(ins), len(outs)) + 2
        for i, (name, value) in enumerate(zip(NAMES.get(kind, []), values, strict=True)):
            shown = {True: "on", False: "off"}.get(value, value) if value is True else value
            text = f"{name}: {shown}"
            axes.text(x + 14, below + 19 * i, text, size=8, va="center", color="#444", zorder=3)
    axes.set(xlim=(-15, 1305), ylim=(735, -15))
    axes.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    WORKFLOW.write_text(json.dumps(workflow(), indent=1) + "\n", encoding="utf-8")
    draw()
