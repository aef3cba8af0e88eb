"""Pickles that want to run something, and the files that they come in."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable

from pickle_cases import (
    archive,
    blob,
    legacy,
    name,
    nested,
    stacked,
    state,
    storage,
    stream,
    tensor,
    text,
)

CANARY = "reg_engine_canary"
SHELL = f"touch {CANARY}"
CODE = f"open({CANARY!r}, 'w')"

CALLS = {
    "os": name("os", "system") + text(SHELL) + b"\x85R",
    "posix": name("posix", "system") + text(SHELL) + b"\x85R",
    "nt": name("nt", "system") + text(SHELL) + b"\x85R",
    "eval": name("builtins", "eval") + text(CODE) + b"\x85R",
    "exec": name("builtins", "exec") + text(CODE) + b"\x85R",
    "py2": name("__builtin__", "eval") + text(CODE) + b"\x85R",
    "import": name("builtins", "__import__") + text("antigravity") + b"\x85R",
    "open": name("builtins", "open") + text(CANARY) + text("w") + b"\x86R",
    "popen": name("subprocess", "Popen") + b"(]" + text(SHELL) + b"atR",
    "check_output": name("subprocess", "check_output") + text(SHELL) + b"\x85R",
    "runpy": name("runpy", "_run_code") + text(CODE) + b"}\x86R",
    "loads": name("pickle", "loads") + blob(b"cos\nsystem\n.") + b"\x85R",
    "c_loads": name("_pickle", "loads") + blob(b"cos\nsystem\n.") + b"\x85R",
    "load": name("torch", "load") + text("x.pt") + b"\x85R",
    "hub": name("torch.hub", "load") + text("x") + text("y") + b"\x86R",
    "jit": name("torch.jit", "load") + text("x.pt") + b"\x85R",
    "numpy": name("numpy", "load") + text("x.npy") + b"\x85R",
    "partial": name("functools", "partial") + name("os", "system") + text(SHELL) + b"\x86R",
    "map": name("builtins", "map") + name("os", "system") + b"]" + text(SHELL) + b"a\x86R",
    "module": name("importlib", "import_module") + text("os") + b"\x85R",
    "function": name("types", "FunctionType") + b")R",
    "code": name("types", "CodeType") + b")R",
    "timeit": name("timeit", "timeit") + text(CODE) + b"\x85R",
    "pdb": name("pdb", "run") + text(CODE) + b"\x85R",
    "doctest": name("doctest", "debug_script") + text(CODE) + b"\x85R",
    "cprofile": name("cProfile", "run") + text(CODE) + b"\x85R",
    "ctypes": name("ctypes", "CDLL") + text("libc.so.6") + b"\x85R",
    "pip": name("pip", "main") + b"]" + text("install") + b"a\x85R",
    "rmtree": name("shutil", "rmtree") + text("/nowhere") + b"\x85R",
    "socket": name("socket", "create_connection") + b")R",
    "webbrowser": name("webbrowser", "open") + text("http://localhost") + b"\x85R",
    "getattr": name("builtins", "getattr") + name("os", "path") + text("os") + b"\x86R",
    "attrgetter": name("operator", "attrgetter") + text("system") + b"\x85R",
    "methodcaller": name("operator", "methodcaller") + text("system") + text(SHELL) + b"\x86R",
}

CHAIN = name("builtins", "getattr") + name("builtins", "__import__") + text("os") + b"\x85R"
CHAIN += text("system") + b"\x86R" + text(SHELL) + b"\x85R"
SPACE = name("argparse", "Namespace")
TRICKS = {
    "getattr chain": CHAIN,
    "stacked": stacked("os", "system") + text(SHELL) + b"\x85R",
    "stacked, short": b"\x8c\2os\x8c\6system\x93" + text(SHELL) + b"\x85R",
    "dotted": stacked("torch", "serialization.os.system") + text(SHELL) + b"\x85R",
    "dotted layer": stacked("torch.nn.modules.module", "Module.__init__.__globals__") + b")R",
    "dotted known": stacked("collections", "OrderedDict.__init__") + b")R",
    "split": stacked("torch.nn.modules.x\nos", "System") + b")R",
    "NUL": stacked("os\0", "system") + b")R",
    "wide": stacked("ｏs", "system") + b")R",
    "nested reduce": SPACE + CALLS["os"] + b"\x85R",
    "reduce of a result": SPACE + b")R" + text(SHELL) + b"\x85R",
    "reduce of a text": text("os.system") + text(SHELL) + b"\x85R",
    "memo": name("os", "system") + b"q\0" + b"0h\0" + text(SHELL) + b"\x85R",
    "memo over another": SPACE + b"q\0" + b"0" + name("os", "system") + b"q\0" + b"0h\0)R",
    "memo unknown": b"h\x63)R",
    "memo far": b"Nr\xff\xff\xff\xff" + b"0j\xff\xff\xff\xfe",
    "memoize nothing": b"\x94",
    "newobj": name("os", "system") + text(SHELL) + b"\x85\x81",
    "newobj_ex": SPACE + b")}\x92",
    "inst": b"(" + text(SHELL) + b"ios\nsystem\n",
    "obj": b"(" + name("argparse", "Namespace") + text(SHELL) + b"o",
    "ext1": b"\x82\1)R",
    "ext2": b"\x83\1\0)R",
    "ext4": b"\x84\1\0\0\0)R",
    "persid": b"Pos.system\n",
    "setstate": name("argparse", "Namespace") + b"}" + text("__setstate__") + b"Nsb" + b"Nb",
    "state of a class": SPACE + b"}" + text("__reduce__") + CALLS["os"] + b"sb",
    "class of an instance": SPACE
    + b")\x81N}"
    + text("__class__")
    + name("os", "system")
    + b"s\x86b",
    "state of a tensor": tensor(storage("0", 1), 0, (1,), (1,)) + b"}b",
    "item of a class": name("collections", "OrderedDict") + text("x") + b"Ns",
    "append to a class": name("collections", "OrderedDict") + b"Na",
    "set of calls": name("builtins", "set") + b"]" + CALLS["exec"] + b"a\x85R",
    "constructor": name("copyreg", "_reconstructor") + name("os", "system") + b"NN\x87R",
    "constructor of a text": name("copyreg", "_reconstructor") + text("os.system") + b"NN\x87R",
    "extension": name("copyreg", "add_extension") + b")R",
    "persistent id": b"(" + text("storage") + CALLS["os"] + b"NNNtQ",
    "persistent module": b"("
    + text("module")
    + name("os", "system")
    + text("f")
    + text(CODE)
    + b"tQ",
    "storage's class": b"(" + text("storage") + name("os", "system") + text("0") + b"NK\1tQ",
    "hooks": name("torch._utils", "_rebuild_parameter") + b"N\x88" + CALLS["eval"] + b"\x87R",
    "dtype": name("torch._utils", "_rebuild_tensor_v3") + b"(NK\0))\x89}" + CALLS["os"] + b"tR",
    "subclass": name("torch._tensor", "_rebuild_from_type_v2") + name("os", "system") + b"NNN(tR",
    "quantised": name("torch._utils", "_rebuild_qtensor") + b")R",
    "source": name("torch_utils.persistence", "_reconstruct_persistent_obj")
    + state(type=text("class"), module_src=text(CODE), class_name=text("x"), state=CALLS["os"])
    + b"\x85R",
}
PAYLOADS = {**CALLS, **TRICKS}

STORED = {"data/0": bytes(4)}


def plain(body: bytes) -> bytes:
    return stream(body, 4)


WRAPPERS: dict[str, Callable[[bytes], bytes]] = {
    "pickle": plain,
    "zip": lambda body: archive(state(a=body), STORED),
    "zip, deflated": lambda body: archive(state(a=body), STORED, zipfile.ZIP_DEFLATED),
    "legacy": lambda body: legacy(state(a=body), {"0": bytes(4)}),
    "legacy magic": lambda body: stream(body) + legacy(b"}"),
    "legacy version": lambda body: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + stream(body),
    "nested": lambda body: stream(state(a=tensor(nested(stream(body)), 0, (1,), (1,)))),
    "nested legacy": lambda body: stream(state(a=nested(legacy(body)))),
    "after a tensor": lambda body: archive(
        state(a=tensor(storage("0", 1), 0, (1,), (1,)), b=body), STORED
    ),
    "unused": lambda body: archive(
        body + b"0" + state(a=tensor(storage("0", 1), 0, (1,), (1,))), STORED
    ),
}
SMALL = tensor(storage("0", 4), 0, (4,), (1,))


def modules(levels: int, wide: int, leaf: bytes = b"}") -> bytes:
    """A module of ten modules of ten modules ..., each the same."""
    call = name("torch_utils.persistence", "_reconstruct_persistent_obj") + b"q\xff" + b"0"
    body = call
    inside = state(_parameters=leaf, _modules=b"}")
    for level in range(levels):
        if level:
            held = b"".join(text(str(n)) + b"h" + bytes([level - 1]) for n in range(wide))
            inside = state(_parameters=leaf, _modules=b"}(" + held + b"u")
        meta = state(type=text("class"), class_name=text("M"), state=inside)
        body += b"h\xff" + meta + b"\x85Rq" + bytes([level]) + b"0"
    return body + b"h" + bytes([levels - 1])
