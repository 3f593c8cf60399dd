"""Plots of a training, updated live in a notebook. Requires matplotlib, but no display."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from .following import Record


class Board:
    """A plot that can be redrawn."""

    def __init__(self) -> None:
        # Without pyplot, which would open windows and keep every figure alive.
        self.figure = Figure(figsize=(10, 3.5), layout="constrained")
        self._shown: Any = None

    def redraw(self, record: Record) -> Figure:
        """Draws a training; in a notebook, replaces the previous plot."""
        record.draw(self.figure)
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
