"""``python -m sparse_xp.cpu``: which CPU this is, what 8-bit integers gain on it, and what follows for recipes.

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

from sparse_xp.cli import command, split
from sparse_xp.errors import UserError, did_you_mean

#: the instruction sets that decide how fast floating point and integers are; a CPU is named with those it has
SETS = tuple("amx_int8 amx_bf16 avx512_vnni avx_vnni avx512_bf16 avx512f avx2 fma asimddp i8mm bf16 sve neon".split())
X86 = ("x86_64", "amd64", "i686", "i386")


@dataclass(frozen=True)
class Kind:
    """A kind of CPU. ``fast``: it has instructions for 8-bit products.

    ``saturates``: it adds two 8-bit products in 16 bits, which can overflow (``saturation``).
    """

    told: str
    fast: bool
    saturates: bool


KINDS = {
    "amx": Kind("x86 with AMX", fast=True, saturates=False),
    "vnni": Kind("x86 with VNNI", fast=True, saturates=False),
    "avx512": Kind("x86 with AVX-512 and no VNNI", fast=False, saturates=True),
    "avx2": Kind("x86 with AVX2 and no VNNI", fast=False, saturates=True),
    "x86": Kind("x86 without AVX2", fast=False, saturates=True),
    "arm_dot": Kind("ARM with dot products", fast=True, saturates=False),
    "arm": Kind("ARM without dot products", fast=False, saturates=False),
}


@dataclass(frozen=True)
class CPU:
    """A processor. ``family``, ``model`` and ``stepping`` are x86's numbers, ``sets`` those of ``SETS`` that it has."""

    name: str
    family: int | None
    model: int | None
    stepping: int | None
    sets: tuple[str, ...]
    cores: int
    x86: bool = True

    @property
    def kind(self) -> str:
        """The key in ``KINDS``."""
        if not self.x86:
            return "arm_dot" if {"asimddp", "i8mm"} & set(self.sets) else "arm"
        if "amx_int8" in self.sets:
            return "amx"
        if {"avx512_vnni", "avx_vnni"} & set(self.sets):
            return "vnni"
        return "avx512" if "avx512f" in self.sets else "avx2" if "avx2" in self.sets else "x86"

    @property
    def short(self) -> str:
        """Name and kind: AMD EPYC (x86 with AVX2 and no VNNI)."""
        return f"{self.name} ({KINDS[self.kind].told})"

    def __str__(self) -> str:
        """All that tells it from another one; two CPUs that print the same compute at the same speed."""
        numbers = {"family": self.family, "model": self.model, "stepping": self.stepping}
        told = [f"{name} {number}" for name, number in numbers.items() if number is not None]
        return f"{self.name} ({'; '.join(filter(None, [' '.join(told), ' '.join(self.sets)]))}), {self.cores} cores"


@cache
def this_cpu() -> CPU:
    """The CPU of this machine."""
    cores = os.cpu_count() or 1
    proc = Path("/proc/cpuinfo")
    if proc.is_file():
        return from_proc(proc.read_text(encoding="utf-8", errors="replace"), platform.machine(), cores)
    if platform.system() == "Darwin":
        listed = subprocess.run(["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True, check=False)
        return from_sysctl(listed.stdout, platform.machine(), cores)
    return from_numpy(platform.processor() or platform.machine(), platform.machine(), cores)


def from_proc(text: str, machine: str, cores: int) -> CPU:
    """From the first processor in Linux's ``/proc/cpuinfo``. ``machine``: as ``platform.machine()`` has it."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    part = " ".join(fields[key] for key in ("CPU implementer", "CPU part", "CPU variant") if key in fields)
    name = fields.get("model name") or (f"ARM {part}" if part else machine)
    return described(name, [fields.get(key, "") for key in ("cpu family", "model", "stepping")], flags, machine, cores)


def from_sysctl(text: str, machine: str, cores: int) -> CPU:
    """From what macOS's ``sysctl machdep.cpu hw.optional`` lists."""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    words = f"{fields.get('machdep.cpu.features', '')} {fields.get('machdep.cpu.leaf7_features', '')}".lower()
    flags = set(words.replace("avx512vnni", "avx512_vnni").split())
    arm = {"FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16"}
    flags |= {ours for theirs, ours in arm.items() if fields.get(f"hw.optional.arm.{theirs}") == "1"}
    numbers = [fields.get(f"machdep.cpu.{key}", "") for key in ("family", "model", "stepping")]
    return described(fields.get("machdep.cpu.brand_string", machine), numbers, flags, machine, cores)


def from_numpy(name: str, machine: str, cores: int) -> CPU:
    """Where the system has no such list (Windows): what NumPy found when it chose its own kernels.

    It does not look for AVX-VNNI and AMX: a CPU with no other VNNI than these is taken for one of AVX2 or AVX-512.
    """
    from numpy._core._multiarray_umath import __cpu_features__

    names = {"AVX512VNNI": "avx512_vnni", "AVX512_ICL": "avx512_vnni", "AVX512F": "avx512f", "X86_V4": "avx512f"}
    names |= {"AVX2": "avx2", "X86_V3": "avx2", "FMA3": "fma", "ASIMDDP": "asimddp", "SVE": "sve"}
    flags = {ours for theirs, ours in names.items() if __cpu_features__.get(theirs)}
    return described(name, ["", "", ""], flags, machine, cores)


def described(name: str, numbers: list[str], flags: set[str], machine: str, cores: int) -> CPU:
    """``numbers``: family, model and stepping as text, empty where there are none."""
    family, model, stepping = (int(number) if number.isdecimal() else None for number in numbers)
    sets = tuple(each for each in SETS if each in flags)
    return CPU(name, family, model, stepping, sets, cores, x86=machine.lower() in X86)


def advice(kind: str) -> str:
    """What 8 bits gain on a CPU of this kind, and which recipe gains more."""
    if KINDS[kind].fast:
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
    """What a file of 8-bit integers computes on a CPU of this kind."""
    if not KINDS[kind].saturates:
        return "every file of 8-bit integers is computed exactly."
    return (
        "products are added in 16 bits, which files of quantization.reduce_range=true (the default) cannot overflow. "
        "Others need session.x64quantprecision=1 in onnxruntime, which every session of sparse_xp sets."
    )


def main(words: list[str]) -> None:
    """Run the command with these words."""
    given = split(words, ("kind",))
    cpu = this_cpu()
    kind = given.get("kind", cpu.kind)
    if kind not in KINDS:
        raise UserError(f"kind={kind}: want one of {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")
    if "kind" not in given:
        print(f"{cpu}\n")
    print(f"{kind}: {KINDS[kind].told}\n\n8 bits: {advice(kind)}\nAnswers: {portability(kind)}")


if __name__ == "__main__":
    command(main, __doc__, bare=True)
