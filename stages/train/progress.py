"""What a person sees while a network is trained: one bar or line per epoch."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from stages.train.schedule import Epoch

if TYPE_CHECKING:
    from rich import progress as rich_progress

SECONDS = 5.0  # from one line to the next


class EpochProgress:
    """Epoch by epoch: a bar on a terminal, else a line at most every five seconds and one for the last epoch."""

    def __init__(self, title: str, epochs: int, show: bool) -> None:
        """Prepare the display; as a context it is shown from beginning to end.

        Args:
            title: What is trained.
            epochs: How many epochs there are at most.
            show: Whether this process prints; of several processes only the first one does.
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
        """Show an epoch that is done."""
        number = epoch.epoch + 1
        if self.bar:
            words = f"{number}/{self.epochs} loss {epoch.train_loss:.3f} accuracy {epoch.validation_accuracy:.3f}"
            self.bar.update(self.task, completed=number, words=words)
        elif self.show and (time.monotonic() - self.printed > SECONDS or number == self.epochs):
            self.printed = time.monotonic()
            print(
                f"{self.title}: epoch {number}/{self.epochs}  loss {epoch.train_loss:.4f}  validation: loss "
                f"{epoch.validation_loss:.4f} accuracy {epoch.validation_accuracy:.4f} F1 "
                f"{epoch.validation_f1_macro:.4f}",
                flush=True,
            )
