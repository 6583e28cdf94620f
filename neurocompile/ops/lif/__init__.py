"""The op `lif` (leaky integrate-and-fire neurons of EAS-SNN and of the I2E networks)."""

from neurocompile.ops.lif.dispatch import lif
from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.lif.step import step
from neurocompile.ops.lif.surrogate import fire

__all__ = ["Neuron", "fire", "lif", "step"]
