"""The names that a file may use: those of the list, and what each becomes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reg_engine.convert import names
from reg_engine.convert.records import Name, Record
from reg_engine.convert.tensors import Storage, Stored

FLOATS = Storage(torch.float32, 4, memoryview(bytes(16)))


def test_the_list_is_short_and_known() -> None:
    """A name that is added here runs nothing, but is one more that a file may use."""
    assert set(names.FUNCTIONS) == {
        "_codecs.encode",
        "builtins.set",
        "__builtin__.set",
        "collections.OrderedDict",
        "copyreg._reconstructor",
        "copy_reg._reconstructor",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch_utils.persistence._reconstruct_persistent_obj",
    }
    for full in (*names.FUNCTIONS, *names._RECORDS):
        module, _, called = full.rpartition(".")
        assert names.named(module, called) == Name(module, called)


@pytest.mark.parametrize(
    ("module", "called"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "set.__class__"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "os.system"),
        ("torch.nn.modules.container", "ModuleDict.forward"),
        ("torch.nn.modules.container.x", "ModuleDict"),
        ("torch.nn.modules.module", "os"),
        ("torch.nn.modules", "Linear"),
        ("torch.nn.modules.linear", "linear"),
        ("torch.nn.modules.linear", "Linear\nx"),
        ("torch.storage", "_load_from_bytes"),  # in plain pickles alone, where it is read nested
        ("torch.serialization", "load"),
        ("torch", "load"),
        ("", ""),
        ("builtins.set", ""),
        ("", "builtins.set"),
    ],
)
def test_other_names_are_refused(module: str, called: str) -> None:
    with pytest.raises(ValueError, match="which is not read here"):
        names.named(module, called)


def test_layers_become_records() -> None:
    found = names.call(names.named("torch.nn.modules.container", "ModuleDict"), ())
    assert isinstance(found, Record) and str(found.kind).endswith("container.ModuleDict")


def test_what_functions_give() -> None:
    kind = Name("argparse", "Namespace")
    assert names.call(Name("collections", "OrderedDict"), ()) == {}
    made = names.call(Name("copyreg", "_reconstructor"), (kind, Name("builtins", "object"), None))
    assert isinstance(made, Record) and made.kind == kind and made.args == ()
    ordered = (Name("collections", "OrderedDict"), Name("builtins", "dict"), {})
    assert names.call(Name("copyreg", "_reconstructor"), ordered) == {}
    values = [1, 2]
    assert names.call(Name("builtins", "set"), (values,)) is values
    assert names.call(Name("_codecs", "encode"), ("ab", "latin1")) == "ab"
    args = (FLOATS, 1, (2,), (1,), False, {})
    found = names.call(Name("torch._utils", "_rebuild_tensor_v2"), args)
    assert (found.dtype, found.offset, found.shape, found.stride) == (torch.float32, 1, (2,), (1,))
    found = names.call(Name("torch._utils", "_rebuild_tensor_v3"), (*args, Name("torch", "int16")))
    assert found.dtype == torch.int16
    for more in ((True, {}), (True, {}, {"x": 1})):
        called = "_rebuild_parameter" + "_with_state" * (len(more) - 2)
        assert names.call(Name("torch._utils", called), (found, *more)) is found
    meta = {"type": "class", "class_name": "UNet", "module_src": "1 / 0", "state": {"a": 1}}
    net = names.call(Name("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))
    assert str(net.kind) == "persistent.UNet" and net.state == {"a": 1}


TENSOR = (FLOATS, 0, (2,), (1,), False, {})
META = {"type": "class", "class_name": "UNet", "state": {}}


@pytest.mark.parametrize(
    ("full", "args", "says"),
    [
        ("collections.OrderedDict", ([],), "unusual"),
        ("copyreg._reconstructor", ("x", None, None), "no class"),
        ("copyreg._reconstructor", (), "unusual"),
        ("torch._utils._rebuild_tensor_v2", (), "unusual"),
        ("torch._utils._rebuild_tensor_v2", (1,) * 100_000, "unusual"),
        ("torch._utils._rebuild_tensor_v2", (None, *TENSOR[1:]), "without storage"),
        ("torch._utils._rebuild_tensor_v2", (FLOATS, 0, [2], (1,), False, {}), "without storage"),
        ("torch._utils._rebuild_tensor_v2", (FLOATS, 0, (2,), None, False, {}), "without storage"),
        ("torch._utils._rebuild_tensor_v2", (FLOATS, 3, (2,), (1,), False, {}), "claims"),
        ("torch._utils._rebuild_tensor_v2", (*TENSOR, {"conj": True}), "metadata"),
        ("torch._utils._rebuild_tensor_v3", (*TENSOR, torch.int16), "known type"),
        ("torch._utils._rebuild_tensor_v3", (*TENSOR, Name("torch", "Size")), "known type"),
        ("torch._utils._rebuild_tensor_v3", (*TENSOR, "torch.int16"), "known type"),
        ("torch._utils._rebuild_parameter", (FLOATS, True, {}), "without a tensor"),
        ("torch_utils.persistence._reconstruct_persistent_obj", ("x",), "without class"),
        (
            "torch_utils.persistence._reconstruct_persistent_obj",
            ({**META, "type": "x"},),
            "without class",
        ),
        (
            "torch_utils.persistence._reconstruct_persistent_obj",
            ({**META, "state": []},),
            "without class",
        ),
        (
            "torch_utils.persistence._reconstruct_persistent_obj",
            ({**META, "class_name": ["UNet"]},),
            "without class",
        ),
    ],
)
def test_unusual_arguments_are_refused(full: str, args: Any, says: str) -> None:
    module, _, called = full.rpartition(".")
    with pytest.raises(ValueError, match=says):
        names.call(Name(module, called), args)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storages_by_their_names() -> None:
    for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte"):
        one = getattr(torch, f"{kind}Storage")(1)
        assert names.dtype_of(Name("torch", f"{kind}Storage")) == one.dtype
    assert names.dtype_of(Name("torch", "BoolStorage")) == torch.bool
    assert names.dtype_of(Name("torch.storage", "UntypedStorage")) == torch.uint8
    assert isinstance(names.call(Name("torch._utils", "_rebuild_tensor_v2"), TENSOR), Stored)
