"""What a model family must tell so that its checkpoints can be opened; one file per family beside this one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from runtime.front_ends import FrontEnd


@dataclass(frozen=True)
class Request:
    """What the user says about weights that do not describe themselves.

    Attributes:
        path: The checkpoint as the user named it.
        preset: Name of a published configuration.
        config: A configuration table; never together with `preset`.
    """

    path: Path
    preset: str | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Identity:
    """Which model some weights are.

    Attributes:
        config: The family's configuration.
        front_end: How the model was fed in training.
        labels: Class names in logit order; empty if nobody tells.
        notes: What was decided without the user saying so, one sentence each.
    """

    config: Any
    front_end: FrontEnd
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Family(Protocol):
    """The face of one model family.

    Attributes:
        name: As headers and manifests write it.
        signs: How its checkpoints are recognised, for error messages.
        takes: Kind of the front end that feeds its models.
    """

    name: str
    signs: str
    takes: str

    def recognises(self, names: Collection[str]) -> bool:
        """Whether tensors of these names are weights of this family."""

    def identify(self, tensors: Mapping[str, Tensor], request: Request) -> Identity:
        """Decides which model foreign weights are.

        Raises:
            UserError: If shapes and request leave it open or contradict each other.
        """

    def config(self, table: Mapping[str, Any]) -> Any:
        """The configuration of a header, a dataclass of plain values; `dataclasses.asdict` is the inverse.

        Raises:
            UserError: If the table does not describe a model.
        """

    def build(self, config: Any) -> nn.Module:
        """A model of that configuration, its weights of no account."""

    def state_dict(self, tensors: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
        """The weights under the names of `build(config).state_dict()`.

        Raises:
            UserError: If a tensor is missing, unexpected or of another shape.
        """
