"""Show the progress of training on the terminal, epoch by epoch."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from stages.train.schedule import Epoch

if TYPE_CHECKING:
    from rich import progress as rich_progress

INTERVAL_S = 5.0  # minimum time between two printed lines, in seconds


class EpochProgress:
    """Shows the progress of training as a bar on a terminal, or as lines of text if the output is a pipe or a file.

    At most one line is printed every INTERVAL_S seconds, and one more line for the last epoch.
    """

    def __init__(self, title: str, epochs: int, show: bool) -> None:
        """Prepare the display. The bar is visible inside a `with` block.

        Args:
            title: Text in front of the progress bar or of each line, for example "train cnn".
            epochs: Maximum number of epochs.
            show: Whether this process shows the progress. Only the first process should show it.
        """
        self.title, self.epochs, self.show = title, epochs, show
        self.printed = 0.0
        self.bar: rich_progress.Progress | None = None
        if show and sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                "{task.description}", BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn()
            )
            self.task = self.bar.add_task(title, total=epochs, words="")

    def __enter__(self) -> EpochProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, epoch: Epoch) -> None:
        """Show the results of a completed epoch."""
        number = epoch.epoch + 1
        if self.bar:
            words = f"{number}/{self.epochs} loss {epoch.train_loss:.3f} accuracy {epoch.validation_accuracy:.3f}"
            self.bar.update(self.task, completed=number, words=words)
        elif self.show and (time.monotonic() - self.printed > INTERVAL_S or number == self.epochs):
            self.printed = time.monotonic()
            partial = "" if epoch.validation_f1_partial is None else " over the classes that have samples"
            print(
                f"{self.title}: epoch {number}/{self.epochs}  loss {epoch.train_loss:.4f}  validation: loss "
                f"{epoch.validation_loss:.4f} accuracy {epoch.validation_accuracy:.4f} F1 "
                f"{epoch.score('f1_macro'):.4f}{partial}",
                flush=True,
            )
