"""The build of csrc/ by CMake; everything else about the package stands in pyproject.toml.

REG_ENGINE_BUILD: auto (the default) builds what can be built, and says what is left out and why;
1 fails instead; 0 builds nothing, for a wheel of Python alone. REG_ENGINE_CUDA: the same for the
CUDA ops, which auto builds where there are nvcc and a torch with CUDA. REG_ENGINE_CUDA_ARCHS: as
CMake's CUDA_ARCHITECTURES. torch is not imported, only its folder is looked for.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = [f"csrc/{line}" for line in (ROOT / "csrc/sources.txt").read_text("utf-8").split()]
BUILD, CUDA = (os.environ.get(name, "auto") for name in ("REG_ENGINE_BUILD", "REG_ENGINE_CUDA"))
OLDEST_TORCH = (2, 10)


PAPERS = {
    "REG (Gao et al. 2025)": "https://arxiv.org/abs/2501.18865",
    "Classifier-centric guidance (Zhao and Schwing 2026)": "https://arxiv.org/abs/2503.10638",
}


def home() -> str:
    """The repository that this is built from, "" where the build does not know one."""
    server = os.environ.get("GITHUB_SERVER_URL", "")
    name = os.environ.get("GITHUB_REPOSITORY", "")
    return f"{server}/{name}" if server.startswith("https://") and name else ""


def urls() -> dict[str, str]:
    """Links on a package index: the papers, and the repository where it is known."""
    if not home():
        return PAPERS
    pages = {"Source": "", "Documentation": "/tree/main/docs", "Issues": "/issues"}
    pages |= {"Changelog": "/blob/main/CHANGELOG.md"}
    return {name: home() + path for name, path in pages.items()} | PAPERS


def readme() -> str:
    """README.md for a package index. Links into the repository lead there where it is known;
    elsewhere they would lead nowhere: the pictures go, of the links their text stays."""
    text = (ROOT / "README.md").read_text("utf-8")
    picture, link = r"!\[([^\]]*)\]\((?!https?:)([^)]*)\)", r"\[([^\]]*)\]\((?!https?:|#)([^)]*)\)"
    if home():
        text = re.sub(picture, rf"![\1]({home()}/raw/main/\2)", text)
        return re.sub(link, rf"[\1]({home()}/blob/main/\2)", text)
    text = re.sub(picture + r"\n*", "", text)
    return re.sub(link, r"\1", text)


class CannotBuild(Exception):
    """Why the ops, or those of CUDA, cannot be built here."""


def torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    # In pip's isolated build torch cannot be imported; the interpreter is still the target's.
    found = [Path(spec.origin).parent] if spec and spec.origin else []
    found += [Path(sysconfig.get_path(kind), "torch") for kind in ("purelib", "platlib")]
    for folder in (folder for folder in found if (folder / "version.py").exists()):
        text = (folder / "version.py").read_text("utf-8")
        version = re.search(r"__version__ = '((\d+)\.(\d+)[^']*)'", text)
        if version and (int(version[2]), int(version[3])) >= OLDEST_TORCH:
            return folder
        raise CannotBuild(f"torch {version[1] if version else ''} is older than 2.10")
    raise CannotBuild("no torch here (install it first, then build with --no-build-isolation)")


def cuda_options(torch: Path) -> list[str]:
    """CMake options for the CUDA ops; none where they are left out."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")
    if CUDA == "0" or (CUDA == "auto" and not (torch / "lib/libtorch_cuda.so").exists()):
        return ["-DREG_ENGINE_CUDA=OFF"]
    if nvcc is None:
        if CUDA == "1":
            raise CannotBuild("no nvcc, and REG_ENGINE_CUDA=1")
        print("reg_engine: the CUDA ops are left out: no nvcc", file=sys.stderr)
        return ["-DREG_ENGINE_CUDA=OFF"]
    archs = os.environ.get("REG_ENGINE_CUDA_ARCHS")
    chosen = [f"-DREG_ENGINE_CUDA_ARCHS={archs}"] if archs else []
    return ["-DREG_ENGINE_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}", *chosen]


class Build(build_ext):
    def run(self) -> None:
        self.target = ROOT if self.inplace else Path(self.build_lib).resolve()
        for name in self.get_outputs():  # of an earlier build: nothing old may pass for new
            os.unlink(name)
        try:
            self.cmake()
        except CannotBuild as reason:
            if BUILD == "1":
                raise SystemExit(
                    f"reg_engine: the compiled ops cannot be built: {reason}"
                ) from None
            print(f"reg_engine: the compiled ops are left out: {reason}", file=sys.stderr)
            self.distribution.ext_modules = []
            self.distribution.get_command_obj("bdist_wheel").root_is_pure = True

    def cmake(self) -> None:
        if BUILD == "0":
            raise CannotBuild("REG_ENGINE_BUILD=0")
        if sys.platform != "linux":
            raise CannotBuild(f"they are built on Linux only, this is {sys.platform}")
        torch = torch_folder()
        if shutil.which("cmake") is None:
            raise CannotBuild("no cmake")
        if shutil.which(os.environ.get("CXX", "c++")) is None:
            raise CannotBuild("no C++ compiler")
        folder = str(Path(self.build_temp, "csrc").resolve())
        options = [f"-DTORCH_INCLUDE={torch}/include", f"-DTORCH_LIB={torch}/lib"]
        options += cuda_options(torch) + (["-GNinja"] if shutil.which("ninja") else [])
        for command in (
            ["cmake", "-S", str(ROOT), "-B", folder, *options],
            ["cmake", "--build", folder, "-j", str(os.cpu_count() or 1)],
            ["cmake", "--install", folder, "--prefix", str(self.target)],
        ):
            if subprocess.run(command, check=False).returncode:
                raise CannotBuild(f"`{' '.join(command)}` failed, see above")

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (self.target / "reg_engine").glob("_C_*.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}  # in place, CMake installs where Python looks


class Wheel(bdist_wheel):
    """No symbol of CPython is used: one wheel serves every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", "any" if self.root_is_pure else super().get_tag()[2])


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    project_urls=urls(),
    ext_modules=[Extension("reg_engine._C", SOURCES)],
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel},
)
