"""Opens any checkpoint as a model that is ready to use, and saves one as a single .safetensors file.

Files of this software say which model they are. Anybody else's weights are identified by their tensors; where shapes
leave it open, the user decides by a preset or a configuration file, and nothing that merely lies nearby is ever used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.config_file import read_config
from models.families import FAMILIES, family_named, family_of
from models.families.base import Family, Request
from models.formats import Content, read
from models.formats.safetensors_file import write
from models.header import Header
from models.soundness import check_ends, check_kind, check_numbers, plain
from runtime.errors import UserError
from runtime.front_ends import FrontEnd, front_end


@dataclass(eq=False)
class Checkpoint:
    """A trained model with everything needed to feed it and to read its answers.

    Attributes:
        family: Name of the model family.
        model: The model, in evaluation mode and float32.
        config: Its configuration.
        front_end: How events become its inputs.
        labels: Names of the classes, in the order of the logits.
        metadata: Free facts that JSON can express; they are saved.
        notes: What opening it decided, one sentence each; they are not saved.
    """

    family: str
    model: nn.Module
    config: Any
    front_end: FrontEnd
    labels: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def header(self) -> Header:
        """Everything but the weights, as it is saved."""
        return Header(self.family, asdict(self.config), self.front_end.to_json(), tuple(self.labels), self.metadata)


def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    preset: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
) -> Checkpoint:
    """Opens a checkpoint of any known format and family.

    Args:
        path: A .safetensors file, a PyTorch or Lightning file, a Flax file or an Orbax directory.
        preset: Published configuration of weights that do not say what they are, e.g. `dvs/small`.
        config: Configuration of such weights, as a table or the path of a JSON or YAML file: the published nesting
            `{model: {ssm_init, ssm}, data: {num_embeddings, num_classes, resolution}}` or this software's own.
        trust_pickle: Whether a pickle may run code; without it nothing from the file is ever executed.

    Returns:
        The checkpoint; `notes` says what was decided without being asked for.

    Raises:
        UserError: If the file is missing, damaged, unsafe or of an unknown family, if its weights are not finite
            float32 numbers, or if they do not fit the configuration.
    """
    place = Path(path)
    content = read(place, trust_pickle=trust_pickle)
    family, header, notes = _identify(content, _request(place, preset, config))
    check_numbers(content.tensors, place)
    with _blaming(place):
        settings = family.config(header.config)
        items = front_end(header.front_end)
        check_kind(family, items)
        state = family.state_dict(content.tensors, settings)
        check_ends(settings, items, header.labels)
    model = _build(family, settings)
    for name, wanted in model.state_dict().items():
        if (dtype := state[name].dtype) != wanted.dtype:
            raise UserError(
                f"{name} in checkpoint {place} is {plain(dtype)}, but the model holds {plain(wanted.dtype)}; "
                "convert it when saving"
            )
    model.load_state_dict(state)
    return Checkpoint(
        family=family.name,
        model=model.eval(),
        config=settings,
        front_end=items,
        labels=header.labels,
        metadata=dict(header.metadata),
        notes=notes,
    )


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Saves a checkpoint as one .safetensors file, whole or not at all.

    Args:
        path: Ends in `.safetensors`; a file that exists is replaced.
        checkpoint: What to save.

    Raises:
        UserError: If the place cannot be written, or the weights are not finite float32 numbers.
    """
    place = Path(path)
    if place.suffix != ".safetensors":
        raise UserError(f"checkpoint {place} would not be recognised by its name; let it end in .safetensors")
    family_named(checkpoint.family, str(place))
    state = checkpoint.model.state_dict()
    check_numbers(state, place)
    with _blaming(place):
        check_ends(checkpoint.config, checkpoint.front_end, tuple(checkpoint.labels))
    write(place, state, checkpoint.header.to_text())


def describe_checkpoint(
    path: str | os.PathLike[str],
    *,
    preset: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
) -> dict[str, Any]:
    """Says what a checkpoint is, without building the model.

    Args:
        path: As for `open_checkpoint`.
        preset: As for `open_checkpoint`.
        config: As for `open_checkpoint`.
        trust_pickle: As for `open_checkpoint`.

    Returns:
        `path`, `format`, `family` (`None` if unknown), `tensors` and `values` (how many), `dtypes`, `config`,
        `front_end`, `labels` and `metadata` (`None` where the file and shapes leave them open), `notes`.

    Raises:
        UserError: If the file cannot be read at all.
    """
    place = Path(path)
    content = read(place, trust_pickle=trust_pickle)
    about: dict[str, Any] = {
        "path": str(place),
        "format": content.format,
        "family": None,
        "tensors": len(content.tensors),
        "values": sum(tensor.numel() for tensor in content.tensors.values()),
        "dtypes": sorted({plain(tensor.dtype) for tensor in content.tensors.values()}),
        "config": None,
        "front_end": None,
        "labels": None,
        "metadata": dict(content.metadata),
    }
    request = _request(place, preset, config)
    try:
        family, header, notes = _identify(content, request)
    except UserError as error:
        found = family_of(content.tensors)
        return {**about, "family": found.name if found else None, "notes": [*content.notes, str(error)]}
    return {
        **about,
        "family": family.name,
        "config": dict(header.config),
        "front_end": dict(header.front_end),
        "labels": list(header.labels),
        "metadata": dict(header.metadata),
        "notes": notes,
    }


def _request(place: Path, preset: str | None, config: str | os.PathLike[str] | Mapping[str, Any] | None) -> Request:
    if preset is not None and config is not None:
        raise UserError("--preset and --config both say what the weights are; give one of them")
    if config is not None and not isinstance(config, Mapping):
        config = read_config(config)
    return Request(place, preset, config)


def _identify(content: Content, request: Request) -> tuple[Family, Header, list[str]]:
    """The family of some weights, and the header that they have or would have."""
    where = str(request.path)
    if content.header is not None:
        header = Header.from_text(content.header, where)
        if request.preset is not None or request.config is not None:
            raise UserError(
                f"checkpoint {where} carries its own configuration, which no other can replace; "
                "leave out --preset and --config"
            )
        metadata = {**content.metadata, **header.metadata}
        header = Header(header.family, header.config, header.front_end, header.labels, metadata)
        return family_named(header.family, where), header, list(content.notes)
    family = family_of(content.tensors)
    if family is None:
        names = list(content.tensors)
        known = "; ".join(f"{family.name} ({family.signs})" for family in FAMILIES.values())
        raise UserError(
            f"checkpoint {where} ({content.format}) is of no known model family: its tensors are "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}; known families are {known}"
        )
    with _blaming(request.path):
        identity = family.identify(content.tensors, request)
    notes = [*content.notes, *identity.notes]
    if not (labels := identity.labels):
        labels = tuple(str(number) for number in range(identity.config.num_classes))
        notes.append("classes are numbered, because nothing names them")
    metadata = {**content.metadata, "source": f"{request.path.name} ({content.format})"}
    header = Header(family.name, asdict(identity.config), identity.front_end.to_json(), labels, metadata)
    return family, header, notes


def _build(family: Family, config: Any) -> nn.Module:
    # Initial weights are about to be replaced; drawing them must not move the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        return family.build(config)


@contextmanager
def _blaming(place: Path) -> Iterator[None]:
    """Names the checkpoint in errors about what it says, including values of a type that no field has."""
    try:
        yield
    except UserError as error:
        raise UserError(f"checkpoint {place}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"the description of checkpoint {place} is malformed ({error}); correct or recreate it"
        ) from error
