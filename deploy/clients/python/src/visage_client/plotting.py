"""Plots of a training, updated live in a notebook. Requires matplotlib, but no display."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from .following import Record


class Board:
    """A plot of a record that can be redrawn."""

    def __init__(self, record: Record) -> None:
        self._record = record
        # Without pyplot, which would open windows and keep every figure alive.
        self.figure = Figure(figsize=(10, 3.5), layout="constrained")
        self._shown: Any = None

    def redraw(self) -> Figure:
        """Draws the current state; in a notebook, replaces the previous plot."""
        self._record.draw(self.figure)
        notebook = running_notebook()
        if notebook is not None:
            png = io.BytesIO()
            self.figure.savefig(png, format="png")
            image = notebook.Image(data=png.getvalue())
            if self._shown is None:
                self._shown = notebook.display(image, display_id=True)
            else:
                self._shown.update(image)
        return self.figure


def running_notebook() -> Any:
    """IPython's display module inside IPython, otherwise None."""
    try:
        from IPython import display, get_ipython
    except ImportError:
        return None
    return display if get_ipython() is not None else None
