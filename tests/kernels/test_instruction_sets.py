"""Code for one instruction set stays with it: a processor without that set never reaches it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def _flags() -> dict[str, list[str]]:
    """Instruction set -> the flags that a release is built with, but -O1: less is inlined, so more would be seen, in a
    third of the time."""
    text = (ROOT / "CMakeLists.txt").read_text()
    (common,) = re.findall(r"target_compile_options\(\$\{name\} PRIVATE (.*) \$\{ARGN\}\)", text)
    common = common.replace("$<$<CONFIG:Release>:-O3>", "-O1")
    return {name: f"{common} {own}".split() for name, own in re.findall(r"add_instruction_set\((\w+) (.+)\)", text)}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="one instruction set only")
@pytest.mark.skipif(not COMPILER or not shutil.which("nm"), reason="there is no C++ compiler or no nm")
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_nothing_but_the_table_can_be_reached_from_outside(name: str, tmp_path: Path) -> None:
    """Of inline functions and templates that several files define, the linker takes any one: it must not be this."""
    source, built = ROOT / "src/sharedgrad/kernels/native/isa.cpp", tmp_path / "isa.o"
    flags = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", *_flags()[name], f"-DSHAREDGRAD_ISA={name}"]
    subprocess.run([str(COMPILER), *flags, "-c", str(source), "-o", str(built)], check=True)
    listed = subprocess.run(
        ["nm", "-C", "--defined-only", "-g", str(built)], check=True, capture_output=True, text=True
    )
    symbols = [tuple(line.split(maxsplit=2)[1:]) for line in listed.stdout.splitlines()]
    code = [(kind, symbol) for kind, symbol in symbols if not symbol.startswith("DW.ref.")]  # those are addresses
    assert code == [("T", f"sharedgrad::{name}()")]
