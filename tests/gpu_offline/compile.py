"""Compiles CUDA sources as CubeCL does on a machine with a GPU, and fails where a kernel spills registers.

    compile.py DIRECTORY      of files NAME.ARCHITECTURE.cu, as `ops/cube/cuda_source.rs` leaves them

NVRTC and ptxas come from PyPI (requirements.txt beside this file); they need neither a GPU nor a driver.
"""

import ctypes
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# What ptxas -v says of a kernel.
USAGE = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", re.DOTALL
)


def nvidia(package: str) -> Path:
    [folder] = importlib.util.find_spec(f"nvidia.{package}").submodule_search_locations
    return Path(folder)


def include_tree(into: Path) -> Path:
    """One folder of headers, as an installed CUDA toolkit has."""
    for package in ("cuda_runtime", "cuda_nvcc"):
        for header in (nvidia(package) / "include").iterdir():
            link(header, into / header.name)
    link(nvidia("cuda_cccl") / "include", into / "cccl")
    return into


def link(header: Path, at: Path) -> None:
    """Folders of one name are merged."""
    if header.is_dir() and at.is_dir():
        target = at.resolve()
        at.unlink()
        at.mkdir()
        for entry in [*target.iterdir(), *header.iterdir()]:
            link(entry, at / entry.name)
    elif not at.exists():
        at.symlink_to(header)


class Nvrtc:
    def __init__(self, include: Path):
        self.library = ctypes.CDLL(str(nvidia("cuda_nvrtc") / "lib" / "libnvrtc.so.12"))
        self.include = include

    def ptx(self, source: str, architecture: str) -> str:
        """With the options of cubecl-cuda's `compile_to_ptx`."""
        program = ctypes.c_void_p()
        self.check(self.library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None))
        options = [
            f"--gpu-architecture={architecture}",
            f"--include-path={self.include}",
            "-lineinfo",
            f"--include-path={self.include / 'cccl'}",
        ]
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = self.library.nvrtcCompileProgram(program, len(options), arguments)
        if status != 0:
            sys.exit(f"{self.text(program, 'ProgramLog')}\n{source}")
        return self.text(program, "PTX")

    def text(self, program: ctypes.c_void_p, what: str) -> str:
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f"nvrtcGet{what}")(program, text))
        return text.value.decode()

    def check(self, status: int) -> None:
        if status != 0:
            sys.exit(f"NVRTC failed with status {status}")


def main() -> None:
    sources = sorted(Path(sys.argv[1]).glob("*.cu"))
    if not sources:
        sys.exit(f"no CUDA sources in {sys.argv[1]}")
    ptxas = nvidia("cuda_nvcc") / "bin" / "ptxas"
    spilling = []
    with tempfile.TemporaryDirectory() as scratch:
        include = Path(scratch) / "include"
        include.mkdir()
        nvrtc = Nvrtc(include_tree(include))
        for path in sources:
            architecture = path.suffixes[-2].removeprefix(".")
            ptx = Path(scratch) / "kernel.ptx"
            ptx.write_text(nvrtc.ptx(path.read_text(), architecture))
            command = [ptxas, "-v", f"-arch={architecture}", ptx, "-o", Path(scratch) / "kernel.cubin"]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
            stack, stores, loads, registers = (int(number) for number in USAGE.search(said).groups())
            print(f"{path.stem}: {registers} registers, {stores + loads} bytes spilled, {stack} bytes of stack")
            if stack + stores + loads > 0:
                spilling.append(path.stem)
    if spilling:
        sys.exit(f"registers are spilled in {', '.join(spilling)}")


if __name__ == "__main__":
    main()
