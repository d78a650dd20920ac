"""Processors as their systems describe them, and what follows for 8 bits."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from sparse_xp import cpu
from sparse_xp.cli import run_command
from sparse_xp.cpu import CPU, CPU_KINDS, advice, from_numpy, from_proc, from_sysctl, main, portability, this_cpu
from sparse_xp.errors import UserError


def proc(name="AMD EPYC", family=23, model=49, stepping=0, flags=""):
    first = f"model name\t: {name}\ncpu family\t: {family}\nmodel\t\t: {model}\nstepping\t: {stepping}\n"
    return (
        f"processor\t: 0\nvendor_id\t: X\n{first}flags\t\t: fpu sse2 {flags}\n\nprocessor\t: 1\nmodel name\t: other\n"
    )


AVX512 = "avx2 fma avx512f avx512bw"


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("", "x86"),
        ("avx2 fma", "avx2"),
        (AVX512, "avx512"),
        (f"{AVX512} avx512_vnni", "vnni"),
        ("avx2 fma avx_vnni", "vnni"),
        (f"{AVX512} avx512_vnni amx_tile amx_int8 amx_bf16", "amx"),
    ],
)
def test_kinds_of_x86(flags, kind):
    found = from_proc(proc(flags=flags), "x86_64", 2)
    assert found.kind == kind
    assert CPU_KINDS[kind].saturates == (kind in ("x86", "avx2", "avx512"))
    assert CPU_KINDS[kind].fast == (kind in ("vnni", "amx"))


def test_two_machines_of_one_name_are_told_apart():
    zen2 = from_proc(proc(flags="avx2 fma"), "x86_64", 2)
    others = [
        from_proc(proc(model=1, flags="avx2 fma"), "x86_64", 2),
        from_proc(proc(family=25, flags="avx2 fma"), "x86_64", 2),
        from_proc(proc(stepping=1, flags="avx2 fma"), "x86_64", 2),
        from_proc(proc(flags="avx2 fma avx512f avx512_vnni"), "x86_64", 2),
        replace(zen2, cores=4),
    ]
    assert str(zen2) == "AMD EPYC (family 23 model 49 stepping 0; avx2 fma), 2 cores"
    assert len({str(each) for each in [zen2, *others]}) == 6
    assert zen2.short == "AMD EPYC (x86 with AVX2 and no VNNI)"


def test_arm_on_linux():
    text = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    found = from_proc(text, "aarch64", 4)
    assert (found.kind, str(found)) == ("arm_dot", "ARM 0x41 0xd40 (asimddp i8mm), 4 cores")
    assert from_proc("Features\t: fp asimd\n", "aarch64", 4).kind == "arm"
    assert not CPU_KINDS["arm"].saturates


def test_macos():
    text = "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\n"
    found = from_sysctl(text, "arm64", 8)
    assert (found.kind, str(found)) == ("arm_dot", "Apple M2 (asimddp i8mm), 8 cores")
    text = (
        "machdep.cpu.brand_string: Intel Core i7\nmachdep.cpu.family: 6\nmachdep.cpu.model: 126\n"
        "machdep.cpu.stepping: 5\nmachdep.cpu.leaf7_features: AVX2 AVX512F AVX512VNNI\n"
    )
    assert from_sysctl(text, "x86_64", 4).kind == "vnni"


def test_by_what_numpy_found():
    found = from_numpy("Intel64 Family 6 Model 154", "AMD64", 8)
    assert found.name == "Intel64 Family 6 Model 154"
    assert found.kind in CPU_KINDS


def test_no_description_at_all():
    assert str(from_proc("", "riscv64", 1)) == "riscv64 (), 1 cores"


def test_this_one_is_among_the_kinds():
    assert this_cpu().kind in CPU_KINDS
    assert this_cpu() is this_cpu()


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_every_kind_has_its_advice(kind):
    assert ("structured75_quant" in advice(kind)) == CPU_KINDS[kind].fast
    assert ("x64quantprecision" in portability(kind)) == CPU_KINDS[kind].saturates


def test_the_command(monkeypatch, capsys):
    zen2 = CPU("AMD EPYC", 23, 49, 0, ("avx2",), 2)
    monkeypatch.setattr(cpu, "this_cpu", lambda: zen2)
    monkeypatch.setattr(sys, "argv", ["cpu"])
    run_command(main, cpu.__doc__, needs_arguments=False)
    shown = capsys.readouterr().out
    assert shown.startswith(f"{zen2}\n\navx2: x86 with AVX2 and no VNNI\n")
    assert "structured75" in shown
    main(["kind=vnni"])
    assert capsys.readouterr().out.startswith("vnni: x86 with VNNI\n")
    with pytest.raises(UserError, match=r"kind=vni: expected one of amx, .*Did you mean 'vnni'"):
        main(["kind=vni"])
