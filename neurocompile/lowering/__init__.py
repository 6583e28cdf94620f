"""The loop level that generated C and CUDA share: primitives, their interpreter, and how stage graphs get there."""

from neurocompile.lowering.interpreter import LoopExecutor, run_stage
from neurocompile.lowering.loops import LoopProgram, StageLoops
from neurocompile.lowering.lower import lower

__all__ = ["LoopExecutor", "LoopProgram", "StageLoops", "lower", "run_stage"]
