from __future__ import annotations

import json

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

from benchmarks import triton_report
from neurocompile.ops.forgetting_attention import triton_aot
from neurocompile.ops.forgetting_attention.triton_blocks import SHARED_KIB


@pytest.fixture
def pretended_compiler(monkeypatch):
    """Answers at once; returns what each kernel is said to need."""
    needs = {"shared": 1000}

    def compile_kernel(name, capability, operand, width):
        if name == needs.get("refuses"):
            raise RuntimeError("PassManager::run failed\nmore")
        return triton_aot.Compiled(b"\x7fELF", "", needs["shared"], 4)

    monkeypatch.setattr(triton_aot, "compile_kernel", compile_kernel)
    monkeypatch.setattr(triton_aot, "resources", lambda *_: {"registers": 32, "spills": 0})
    return needs


def test_the_report_has_a_row_for_every_kernel_type_and_width(pretended_compiler, tmp_path, capsys):
    path = tmp_path / "new" / "report.json"
    assert triton_report.main(["--capability", "75", "90", "--width", "32", "-o", str(path)]) == 0
    rows = json.loads(path.read_text())["kernels"]
    assert len(rows) == 2 * 2 * 7
    assert {(row["capability"], row["operand"]) for row in rows} == {
        (75, "fp32"), (75, "fp16"), (90, "fp32"), (90, "bf16")
    }  # fmt: skip


def test_a_kernel_that_does_not_fit_or_compile_is_exit_code_one(pretended_compiler, tmp_path, capsys):
    command = ["--capability", "120", "--width", "32", "-o", str(tmp_path / "report.json")]
    pretended_compiler["shared"] = SHARED_KIB[120] * 1024 + 1
    assert triton_report.main(command) == 1
    assert "14 of 14 kernels do not compile or fit" in capsys.readouterr().err
    pretended_compiler |= {"shared": SHARED_KIB[120] * 1024, "refuses": "key_kernel"}
    assert triton_report.main(command) == 1
    assert "2 of 14 kernels" in (text := capsys.readouterr().err)
    assert "key_kernel for compute capability 12.0, fp32, width 32: RuntimeError: PassManager::run failed" in text


@pytest.mark.parametrize(("option", "value"), [("--capability", "42"), ("--width", "300")])
def test_an_unknown_chip_or_width_is_a_usage_error(option, value, tmp_path, capsys):
    path = tmp_path / "report.json"
    assert triton_report.main([option, value, "-o", str(path)]) == 2
    assert value in capsys.readouterr().err
    assert not path.exists()
