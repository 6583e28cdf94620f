"""Parameters between this package's names and the published Flax tree's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.event_ssm.config import EventSSMConfig
from runtime.errors import UserError

NAMED = 4
"""How many entries an error names before it counts the rest."""


@dataclass(frozen=True)
class Leaf:
    """One array.

    Attributes:
        path: Its path in the Flax tree, e.g. `params/decoder/kernel`.
        name: Its name in `EventSSM.state_dict()`.
        shape: Its shape in the Flax tree.
        transposed: Whether torch holds the transpose.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Its shape in torch."""
        return self.shape[::-1] if self.transposed else self.shape


def leaves(config: EventSSMConfig) -> list[Leaf]:
    """Every parameter and running statistic of a network."""
    table = [Leaf("params/encoder/encoder/embedding", "embedding.weight", (config.num_embeddings, config.d_model))]
    for s, (stage_in, h_out, states) in enumerate(config.stage_widths):
        for number in range(config.num_layers_per_stage):
            h_in = h_out if number else stage_in
            path, name = f"encoder/stages_{s}/SequenceLayer_{number}", f"stages.{s}.{number}"
            table += _layer(f"params/{path}", name, config, h_in, h_out, states)
            if config.batchnorm:
                width = h_in if config.prenorm else h_out
                stats = f"batch_stats/{path}/BatchNorm_0"
                table += [Leaf(f"{stats}/{leaf}", f"{name}.norm.running_{leaf}", (width,)) for leaf in ("mean", "var")]
    return table + _dense("params/decoder", "decoder", config.width, config.num_classes)


def _layer(path: str, name: str, config: EventSSMConfig, h_in: int, h_out: int, states: int) -> list[Leaf]:
    shapes = {
        "Lambda_re": (states,),
        "Lambda_im": (states,),
        "B": (states, h_in, 2),
        "C": (h_out, states, 2),
        "D": (h_in,) if h_in == h_out else (h_out, h_in),
        "log_step": (states, 1),
    }
    norm, width = "BatchNorm_0" if config.batchnorm else "LayerNorm_0", h_in if config.prenorm else h_out
    return [
        *(Leaf(f"{path}/S5SSM_0/{leaf}", f"{name}.s5.{leaf}", shape) for leaf, shape in shapes.items()),
        Leaf(f"{path}/{norm}/scale", f"{name}.norm.weight", (width,)),
        Leaf(f"{path}/{norm}/bias", f"{name}.norm.bias", (width,)),
        *_dense(f"{path}/Dense_0", f"{name}.gate", h_out, h_out),
        *(_dense(f"{path}/Dense_1", f"{name}.skip", h_in, h_out) if h_in != h_out else ()),
    ]


def _dense(path: str, name: str, width_in: int, width_out: int) -> list[Leaf]:
    return [
        Leaf(f"{path}/kernel", f"{name}.weight", (width_in, width_out), transposed=True),
        Leaf(f"{path}/bias", f"{name}.bias", (width_out,)),
    ]


def state_dict_from_flax(flat: Mapping[str, np.ndarray], config: EventSSMConfig) -> dict[str, Tensor]:
    """Renames and transposes the published tree.

    Args:
        flat: Arrays under `/`-joined paths that begin with `params/` or `batch_stats/`.
        config: The network they belong to.

    Returns:
        What `EventSSM(config).load_state_dict` takes, in the arrays' precision.

    Raises:
        UserError: If an array is missing, unexpected, or of another shape than the configuration asks for.
    """
    table = leaves(config)
    check_shapes({path: np.shape(array) for path, array in flat.items()}, {leaf.path: leaf.shape for leaf in table})
    state = {}
    for leaf in table:
        array = np.asarray(flat[leaf.path])
        state[leaf.name] = torch.from_numpy(np.array(array.T if leaf.transposed else array, order="C"))
    return state


def flax_from_state_dict(state: Mapping[str, Tensor], config: EventSSMConfig) -> dict[str, np.ndarray]:
    """The inverse of `state_dict_from_flax`.

    Args:
        state: `EventSSM(config).state_dict()`.
        config: The network it belongs to.

    Returns:
        Arrays under the published paths.

    Raises:
        UserError: As `state_dict_from_flax`.
    """
    table = leaves(config)
    check_shapes({name: tuple(t.shape) for name, t in state.items()}, {leaf.name: leaf.torch_shape for leaf in table})
    flat = {}
    for leaf in table:
        array = state[leaf.name].detach().cpu().numpy()
        flat[leaf.path] = np.array(array.T if leaf.transposed else array, order="C")
    return flat


def infer_config(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Everything that the shapes of a published tree determine.

    The state size is known only up to conjugate symmetry, hence `d_ssm` is not among it; nor are the block size of
    the initialisation, the discretisation, the pooling and the head.

    Args:
        flat: As for `state_dict_from_flax`.

    Returns:
        Values under the names of `EventSSMConfig`; `state_expansion_factor` only with two stages or more, `prenorm`
        only where a layer changes the width.

    Raises:
        UserError: If the arrays are not those of an event-ssm network.
    """
    shapes = {path: np.shape(array) for path, array in flat.items()}
    stages: dict[int, set[int]] = {}
    for path in shapes:
        parts = path.split("/")
        if parts[:2] == ["params", "encoder"] and len(parts) > 3 and parts[2].startswith("stages_"):
            try:
                stages.setdefault(int(parts[2][7:]), set()).add(int(parts[3].rpartition("_")[2]))
            except ValueError:
                raise _foreign(path) from None
    try:
        embeddings, d_model = shapes["params/encoder/encoder/embedding"]
        (classes,) = shapes["params/decoder/bias"]
        first = "params/encoder/stages_{}/SequenceLayer_0"
        states = [shapes[f"{first.format(s)}/S5SSM_0/Lambda_re"][0] for s in range(len(stages))]
        inferred: dict[str, Any] = {
            "num_embeddings": embeddings,
            "num_classes": classes,
            "d_model": d_model,
            "num_stages": len(stages),
            "num_layers_per_stage": len(stages[0]),
            "batchnorm": f"{first.format(0)}/BatchNorm_0/scale" in shapes,
        }
        if len(states) > 1:
            inferred["state_expansion_factor"] = states[1] // states[0]
        norm = "BatchNorm_0" if inferred["batchnorm"] else "LayerNorm_0"
        for s in range(len(stages)):
            _, h_in, _ = shapes[f"{first.format(s)}/S5SSM_0/B"]
            if h_in != shapes[f"{first.format(s)}/S5SSM_0/C"][0]:
                inferred["prenorm"] = shapes[f"{first.format(s)}/{norm}/scale"][0] == h_in
    except KeyError as error:
        raise _foreign(error.args[0]) from None
    except (ValueError, IndexError, ZeroDivisionError):
        raise _foreign("an array of unexpected rank") from None
    return inferred


def check_shapes(given: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raises `UserError`, naming what is missing, unexpected or of another shape."""
    faults = []
    if missing := [path for path in wanted if path not in given]:
        faults.append(f"{_some(missing)} missing")
    if unexpected := [path for path in given if path not in wanted]:
        faults.append(f"{_some(unexpected)} unexpected")
    wrong = [
        f"{path} is {tuple(given[path])} instead of {shape}"
        for path, shape in wanted.items()
        if path in given and tuple(given[path]) != shape
    ]
    if wrong:
        faults.append(_some(wrong))
    if faults:
        raise UserError(
            f"the weights do not fit the configuration: {'; '.join(faults)}; "
            "check that configuration and checkpoint belong together"
        )


def _some(entries: Iterable[str]) -> str:
    entries = list(entries)
    rest = f" and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
    return ", ".join(entries[:NAMED]) + rest


def _foreign(what: str) -> UserError:
    return UserError(
        f"the weights are not a published event-ssm tree ({what} is missing or malformed); "
        "give a checkpoint of that implementation"
    )
