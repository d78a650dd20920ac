"""``python -m sparse_xp.cpu``: which CPU this is, what 8-bit integers gain on it, and which recipes suit it.

    python -m sparse_xp.cpu [kind=vnni]

``kind=``: what follows on a CPU of another kind, as ``export.target_cpu=`` names them: amx, vnni, avx512, avx2, x86,
arm_dot, arm.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sparse_xp.cli import parse_key_values, run_command
from sparse_xp.errors import UserError, did_you_mean

#: the instruction sets that decide the speed of floating point and of 8-bit integers, by Linux's names
INSTRUCTION_SETS = tuple(
    "amx_int8 amx_bf16 avx512_vnni avx_vnni avx512_bf16 avx512f avx2 fma asimddp i8mm bf16 sve neon".split()
)
#: the names of x86 machines in ``platform.machine()``
X86 = ("x86_64", "amd64", "i686", "i386")


@dataclass(frozen=True)
class CpuKind:
    """A kind of CPU.

    ``fast``: it has instructions for 8-bit products. ``saturates``: it adds two 8-bit products in 16 bits, which can
    overflow (``functional.saturation``).
    """

    description: str
    fast: bool
    saturates: bool


#: the values of ``export.target_cpu``
CPU_KINDS = {
    "amx": CpuKind("x86 with AMX", fast=True, saturates=False),
    "vnni": CpuKind("x86 with VNNI", fast=True, saturates=False),
    "avx512": CpuKind("x86 with AVX-512 and no VNNI", fast=False, saturates=True),
    "avx2": CpuKind("x86 with AVX2 and no VNNI", fast=False, saturates=True),
    "x86": CpuKind("x86 without AVX2", fast=False, saturates=True),
    "arm_dot": CpuKind("ARM with dot products", fast=True, saturates=False),
    "arm": CpuKind("ARM without dot products", fast=False, saturates=False),
}


@dataclass(frozen=True)
class CPU:
    """A processor. ``family``, ``model``, ``stepping``: x86's numbers. ``sets``: the INSTRUCTION_SETS that it has."""

    name: str
    family: int | None
    model: int | None
    stepping: int | None
    sets: tuple[str, ...]
    cores: int
    x86: bool = True

    @property
    def kind(self) -> str:
        """The key in ``CPU_KINDS``."""
        if not self.x86:
            return "arm_dot" if {"asimddp", "i8mm"} & set(self.sets) else "arm"
        if "amx_int8" in self.sets:
            return "amx"
        if {"avx512_vnni", "avx_vnni"} & set(self.sets):
            return "vnni"
        return "avx512" if "avx512f" in self.sets else "avx2" if "avx2" in self.sets else "x86"

    @property
    def short(self) -> str:
        """Name and kind, e.g. AMD EPYC (x86 with AVX2 and no VNNI)."""
        return f"{self.name} ({CPU_KINDS[self.kind].description})"

    def __str__(self) -> str:
        """Return all that identifies it. Two CPUs with equal strings compute at the same speed."""
        numbers = {"family": self.family, "model": self.model, "stepping": self.stepping}
        version = " ".join(f"{name} {number}" for name, number in numbers.items() if number is not None)
        return f"{self.name} ({'; '.join(filter(None, [version, ' '.join(self.sets)]))}), {self.cores} cores"


@cache
def this_cpu() -> CPU:
    """Return the CPU of this machine."""
    cores = os.cpu_count() or 1
    proc = Path("/proc/cpuinfo")
    if proc.is_file():
        return from_proc(proc.read_text(encoding="utf-8", errors="replace"), platform.machine(), cores)
    if platform.system() == "Darwin":
        listed = subprocess.run(["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True, check=False)
        return from_sysctl(listed.stdout, platform.machine(), cores)
    return from_numpy(platform.processor() or platform.machine(), platform.machine(), cores)


def from_proc(text: str, machine: str, cores: int) -> CPU:
    """Return the first processor in the text of Linux's ``/proc/cpuinfo``. ``machine``: of ``platform.machine()``."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    part = " ".join(fields[key] for key in ("CPU implementer", "CPU part", "CPU variant") if key in fields)
    name = fields.get("model name") or (f"ARM {part}" if part else machine)
    return make_cpu(name, [fields.get(key, "") for key in ("cpu family", "model", "stepping")], flags, machine, cores)


def from_sysctl(text: str, machine: str, cores: int) -> CPU:
    """Return the processor in the output of macOS's ``sysctl machdep.cpu hw.optional``."""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    features = f"{fields.get('machdep.cpu.features', '')} {fields.get('machdep.cpu.leaf7_features', '')}".lower()
    flags = set(features.replace("avx512vnni", "avx512_vnni").split())
    arm = {"FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16"}
    flags |= {linux for macos, linux in arm.items() if fields.get(f"hw.optional.arm.{macos}") == "1"}
    numbers = [fields.get(f"machdep.cpu.{key}", "") for key in ("family", "model", "stepping")]
    return make_cpu(fields.get("machdep.cpu.brand_string", machine), numbers, flags, machine, cores)


def from_numpy(name: str, machine: str, cores: int) -> CPU:
    """Return the processor with the features that NumPy detected, for systems without such a list (Windows).

    NumPy does not detect AVX-VNNI and AMX: a CPU with no other VNNI is taken for one of AVX2 or AVX-512.
    """
    from numpy._core._multiarray_umath import __cpu_features__

    names = {"AVX512VNNI": "avx512_vnni", "AVX512_ICL": "avx512_vnni", "AVX512F": "avx512f", "X86_V4": "avx512f"}
    names |= {"AVX2": "avx2", "X86_V3": "avx2", "FMA3": "fma", "ASIMDDP": "asimddp", "SVE": "sve"}
    flags = {linux for numpy, linux in names.items() if __cpu_features__.get(numpy)}
    return make_cpu(name, ["", "", ""], flags, machine, cores)


def make_cpu(name: str, numbers: list[str], flags: set[str], machine: str, cores: int) -> CPU:
    """Return the CPU. ``numbers``: family, model and stepping as text, empty if unknown."""
    family, model, stepping = (int(number) if number.isdecimal() else None for number in numbers)
    sets = tuple(name for name in INSTRUCTION_SETS if name in flags)
    return CPU(name, family, model, stepping, sets, cores, x86=machine.lower() in X86)


def advice(kind: str) -> str:
    """Describe what 8 bits gain on a CPU of this kind, and which recipe gains more."""
    if CPU_KINDS[kind].fast:
        return (
            "a quarter of the size and two to three times the speed of fp32. Fewer heads and neurons "
            "(recipe=structured75_quant, speedup4, speedup10) multiply that."
        )
    return (
        "a quarter of the size, but less speed, as there are no instructions for them: up to 1.8 times fp32 in "
        "onnxruntime and nothing in OpenVINO, measured with AVX2. Smaller matrices gain more: recipe=structured50, "
        "structured75, or speedup4 and speedup10, which measure fp32 and 8 bits and take the better one."
    )


def portability(kind: str) -> str:
    """Describe what a file of 8-bit integers computes on a CPU of this kind."""
    if not CPU_KINDS[kind].saturates:
        return "every file of 8-bit integers is computed exactly."
    return (
        "products are added in 16 bits, which files of quantization.reduce_range=true (the default) cannot overflow. "
        "Others need session.x64quantprecision=1 in onnxruntime, which every session of sparse_xp sets."
    )


def main(argv: list[str]) -> None:
    """Run the command."""
    values = parse_key_values(argv, ("kind",))
    cpu = this_cpu()
    kind = values.get("kind", cpu.kind)
    if kind not in CPU_KINDS:
        raise UserError(f"kind={kind}: expected one of {', '.join(CPU_KINDS)}.{did_you_mean(kind, CPU_KINDS)}")
    if "kind" not in values:
        print(f"{cpu}\n")
    print(f"{kind}: {CPU_KINDS[kind].description}\n\n8 bits: {advice(kind)}\nAnswers: {portability(kind)}")


if __name__ == "__main__":
    run_command(main, __doc__, needs_arguments=False)
