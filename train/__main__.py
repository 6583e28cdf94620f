"""`python -m train fit | validate | test | predict | generate | prepare`; see `train.cli`."""

from __future__ import annotations

import sys

from runtime.errors import guard

USAGE = """usage: python -m train COMMAND [--config NAME.yaml] [--KEY VALUE ...]

commands:
  fit        train, test with the best checkpoint, write model.safetensors and metrics.json
  validate   score a checkpoint on the validation split
  test       score a checkpoint on the test split
  predict    write label and logits of every test recording to predictions.csv
  generate   write made-up recordings in the layout of a data set, to try a configuration without the set
  prepare    make from a data set what a configuration reads: prepare cluster

Without --config, fit trains on N-MNIST (nmnist.yaml), and the others take config.yaml from the folder of --ckpt_path.
`python -m train COMMAND --help` lists all keys."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2

    def command() -> int | None:
        if arguments[0] == "generate":
            from train.data.generate import main as generate

            return generate(arguments[1:])
        if arguments[0] == "prepare":
            from train.event2vec.cluster import main as prepare

            return prepare(arguments[1:])
        from train.arguments import complete

        # A wrong name is refused before anything heavy is loaded.
        completed, name = complete(arguments)
        from train.cli import run

        run(completed, name)
        return 0

    return guard(command)


if __name__ == "__main__":
    raise SystemExit(main())
