"""One line an epoch, for terminals and log files alike."""

from __future__ import annotations

import time

import pytorch_lightning as pl


class EpochLines(pl.Callback):
    """Prints loss, accuracy, time of every epoch, and how long is left."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._first, self._begin, self._last = trainer.current_epoch, time.monotonic(), time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the line; validation of the epoch, if any, has run."""
        now, done, last = time.monotonic(), trainer.current_epoch + 1, trainer.max_epochs or 0
        seen = trainer.callback_metrics
        parts = [f"epoch {done}/{last}" if last > 0 else f"epoch {done}"]
        for split in ("train", "validation"):
            if f"{split}/loss" in seen:
                accuracy = seen.get(f"{split}/accuracy")
                words = "" if accuracy is None else f" accuracy {100 * float(accuracy):.1f} %"
                parts.append(f"{split} loss {float(seen[f'{split}/loss']):.3f}{words}")
        parts.append(f"{now - self._last:.1f} s")
        if last > done:
            minutes = (now - self._begin) / (done - self._first) * (last - done) / 60
            parts.append(f"{minutes:.0f} min left" if minutes >= 1 else "less than a minute left")
        self._last = now
        pl_module.print("  ".join(parts))
