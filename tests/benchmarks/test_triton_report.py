from __future__ import annotations

import json

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

from benchmarks import triton_report
from neurocompile.ops.forgetting_attention import triton_aot
from neurocompile.ops.machine_code import SHARED_KIB
from neurocompile.ops.plugin_plan import PLANNED
from neurocompile.targets.trt.plugins import compiled as plugins

OP = "forgetting_attention"


@pytest.fixture
def pretended_compiler(monkeypatch):
    """Answers at once; returns what each kernel is said to need."""
    needs = {"shared": 1000}

    def compile_kernel(name, capability, operand, width):
        if name == needs.get("refuses"):
            raise RuntimeError("PassManager::run failed\nmore")
        return triton_aot.Compiled(b"\x7fELF", "", needs["shared"], 4)

    def compile_plan(plan, capability):
        if capability == needs.get("no_plugin"):
            raise RuntimeError("no plugin")
        report = {"kernel": "k", "warps": 4, "registers": 9, "spills": 0, "shared": 16}
        return type("Image", (), {"ptx_version": 80}), [report for _ in plan.launches]

    monkeypatch.setattr(triton_aot, "compile_kernel", compile_kernel)
    monkeypatch.setattr(triton_aot, "resources", lambda *_: {"registers": 32, "spills": 0})
    monkeypatch.setattr(plugins, "compile_plan", compile_plan)
    return needs


def test_the_report_has_a_row_for_every_kernel_type_and_width(pretended_compiler, tmp_path, capsys):
    folder = tmp_path / "new"
    assert triton_report.main([OP, "--capability", "75", "90", "--width", "32", "-o", str(folder)]) == 0
    report = json.loads((folder / f"triton_{OP}.json").read_text())
    assert (len(report["kernels"]), len(report["plugins"])) == (2 * 2 * 7, 2 * 2 * 3)
    for rows in (report["kernels"], report["plugins"]):
        assert {(row["capability"], row["operand"]) for row in rows} == {
            (75, "fp32"), (75, "fp16"), (90, "fp32"), (90, "bf16")
        }  # fmt: skip
    assert triton_report.main([OP, "--capability", "75", "--plugins-only", "-o", str(folder)]) == 0
    again = json.loads((folder / f"triton_{OP}.json").read_text())
    assert (again["kernels"], len(again["plugins"])) == (report["kernels"], 3 * 2 * 3)


def test_a_kernel_that_does_not_fit_or_compile_is_exit_code_one(pretended_compiler, tmp_path, capsys):
    command = [OP, "--capability", "120", "--width", "32", "-o", str(tmp_path)]
    pretended_compiler["shared"] = SHARED_KIB[120] * 1024 + 1
    assert triton_report.main(command) == 1
    assert "14 kernels do not compile or fit" in capsys.readouterr().err
    pretended_compiler |= {"shared": SHARED_KIB[120] * 1024, "refuses": "key_kernel"}
    assert triton_report.main(command) == 1
    assert "2 kernels do" in (text := capsys.readouterr().err)
    assert "key_kernel for compute capability 12.0, fp32, width 32: RuntimeError: PassManager::run failed" in text
    pretended_compiler |= {"refuses": "", "no_plugin": 120}
    assert triton_report.main(command) == 1
    assert "the first plugin ForgettingAttention for compute capability 12.0" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--capability", "42"), ("--width", "300")])
def test_an_unknown_chip_or_width_is_a_usage_error(option, value, tmp_path, capsys):
    assert triton_report.main([OP, option, value, "-o", str(tmp_path / "new")]) == 2
    assert value in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_every_op_with_a_plugin_is_reported():
    assert set(triton_report.WIDTHS) == set(PLANNED.values())


@pytest.mark.slow
@pytest.mark.parametrize("capability", triton_report.CAPABILITIES)
def test_every_kernel_compiles_for_every_chip(capability, tmp_path):
    """All ops, what training launches and what plugins embed, for one width each."""
    for op, widths in triton_report.WIDTHS.items():
        command = [op, "--capability", str(capability), "--width", str(widths[-1]), "-o", str(tmp_path)]
        assert triton_report.main(command) == 0
