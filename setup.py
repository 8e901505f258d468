"""Builds structops: CMake compiles csrc/, setuptools packages pyops/ as `structops` and kernels/ as `structops.kernels`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def packages() -> dict[str, str]:
    """Import name -> folder, for every folder of Python files under pyops/ and kernels/."""
    found = {}
    for top, name in (("pyops", "structops"), ("kernels", "structops.kernels")):
        for init in sorted((ROOT / top).rglob("__init__.py")):
            folder = init.parent.relative_to(ROOT)
            found[".".join((name, *folder.parts[1:]))] = folder.as_posix()
    return found


def torch_folder() -> str:
    """The torch to compile against: that of the environment being installed into, even under build isolation."""
    override = os.environ.get("STRUCTOPS_TORCH_DIR")
    candidates = [Path(override)] if override else [Path(p) / "torch" for p in sys.path]
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for folder in (*candidates, site / "torch"):
        if (folder / "include/torch/csrc/stable/library.h").is_file():
            return str(folder)
    raise SystemExit("structops needs torch >= 2.11 installed before it is built: pip install 'torch>=2.11' first")


class CMakeBuild(build_ext):
    """Runs CMake; STRUCTOPS_CMAKE_ARGS adds arguments, STRUCTOPS_NO_BUILD=1 leaves the compiled part out."""

    def run(self) -> None:
        if os.environ.get("STRUCTOPS_NO_BUILD") == "1":
            return
        import pybind11

        # Kept between installs, so that only what changed is compiled again. The tools' paths may differ each time.
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        stage = build / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        command = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}", f"-DSTRUCTOPS_TORCH_DIR={torch_folder()}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DSTRUCTOPS_CUDA={os.environ.get('STRUCTOPS_CUDA', 'AUTO')}",
            *os.environ.get("STRUCTOPS_CMAKE_ARGS", "").split(),
        ]  # fmt: skip
        subprocess.run(command, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)
        subprocess.run(["cmake", "--install", str(build), "--prefix", str(stage)], check=True)
        target = ROOT / "pyops" / "lib" if self.editable_mode else Path(self.build_lib) / "structops" / "lib"
        target.mkdir(parents=True, exist_ok=True)
        for library in stage.glob("*.so"):
            # A running process may have the old file mapped: replace it, never write into it.
            shutil.copy2(library, target / (library.name + ".new"))
            os.replace(target / (library.name + ".new"), target / library.name)

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return [str(p) for p in (Path(self.build_lib) / "structops" / "lib").glob("*.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


found = packages()
# What CuPy compiles at run time where there is no nvcc: HEADERS of kernels/sparse/common_nvrtc.py.
found["structops.csrc"] = "csrc"
headers = ["core/cuda/device.cuh", "sparse/spmm.cuh", "sparse/sddmm.cuh", "sparse/softmax.cuh"]
setup(
    packages=list(found),
    package_dir=found,
    include_package_data=False,  # the sdist holds all of csrc
    package_data={"structops": ["py.typed", "*.pyi", "lib/*.pyi"], "structops.csrc": headers},
    ext_modules=[Extension("structops.lib._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
