"""Fills in what a command line leaves out: the configuration, by name or from the folder of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import yaml

from runtime.errors import UserError

COMMANDS = ("fit", "validate", "test", "predict")
SHIPPED = Path(__file__).parent / "configs"
DEFAULT = "nmnist.yaml"
OPTIONS = ("--config", "-c")


def complete(arguments: list[str]) -> tuple[list[str], str]:
    """Resolves every `--config` and adds one if there is none.

    Args:
        arguments: Command, then options.

    Returns:
        The arguments, and the name of the (last) configuration without suffix.

    Raises:
        UserError: If the command or a configuration does not exist.
    """
    if not arguments or arguments[0] not in COMMANDS:
        said = f"command {arguments[0]!r} does not exist" if arguments else "no command given"
        raise UserError(f"{said}; choose one of {', '.join((*COMMANDS, 'generate', 'prepare'))}")
    command, options = arguments[0], list(arguments[1:])
    if any(option in ("-h", "--help") or option.startswith("--help") for option in options):
        return arguments, Path(DEFAULT).stem
    found = None
    for place, option in enumerate(options):
        key, equals, value = option.partition("=")
        if key not in OPTIONS:
            continue
        if not equals and place + 1 == len(options):
            raise UserError(f"{key} needs the name of a configuration file")
        found = locate(value if equals else options[place + 1])
        if equals:
            options[place] = f"{key}={found}"
        else:
            options[place + 1] = str(found)
    if found is None:
        found = locate(DEFAULT) if command == "fit" else beside(_value(options, "--ckpt_path"), command)
        options = ["--config", str(found), *options]
    name = found.parent.name if found.name == "config.yaml" else found.stem
    return [command, *options], name


def locate(name: str) -> Path:
    """The configuration file of this name: as given, or among the shipped ones, with or without folder and suffix.

    Raises:
        UserError: If there is none.
    """
    given = Path(name)
    if given.is_file():
        return given
    inside = given.parts[given.parts.index("configs") + 1 :] if "configs" in given.parts else given.parts
    for candidate in (SHIPPED.joinpath(*inside), SHIPPED.joinpath(*inside).with_suffix(".yaml")):
        if candidate.is_file() and not given.is_absolute():
            return candidate
    names = ", ".join(sorted(path.name for path in SHIPPED.glob("*.yaml")))
    raise UserError(f"configuration {name} does not exist; give the path of a file or one of {names}")


def beside(checkpoint: str | None, command: str) -> Path:
    """`config.yaml` in the folder of the run that wrote `checkpoint`.

    Raises:
        UserError: If there is none.
    """
    if checkpoint is None:
        raise UserError(f"{command} needs --ckpt_path FILE.ckpt (and --config, if the file has left its run's folder)")
    for folder in list(Path(checkpoint).resolve().parents)[:2]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise UserError(f"{checkpoint}: no config.yaml in its folder or the one above; name one with --config")


def chosen_model(arguments: list[str]) -> bool:
    """Whether the last configuration that says anything about the model names the class that trains it."""
    found = False
    for place, option in enumerate(arguments):
        key, equals, value = option.partition("=")
        file = value if equals else arguments[place + 1] if place + 1 < len(arguments) else ""
        if key not in OPTIONS or not Path(file).is_file():
            continue
        try:
            model = (yaml.safe_load(Path(file).read_text()) or {}).get("model")
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
            raise UserError(f"configuration {file} is no table in YAML ({error}); correct it") from error
        found = "class_path" in model if isinstance(model, dict) else found
    return found


def _value(options: list[str], name: str) -> str | None:
    for place, option in enumerate(options):
        key, equals, value = option.partition("=")
        if key == name:
            return value if equals else (options[place + 1] if place + 1 < len(options) else None)
    return None
