"""Curves of a training, which move in a notebook. Needs matplotlib, and no screen."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from .following import Record


class Board:
    """One picture of a record that is drawn again and again."""

    def __init__(self, record: Record) -> None:
        self._record = record
        # Not pyplot's: that would open windows and keep every figure of the process.
        self.figure = Figure(figsize=(10, 3.5), layout="constrained")
        self._shown: Any = None

    def redraw(self) -> Figure:
        """Draws what is known now and, in a notebook, puts it in the place of the picture before."""
        self._record.draw(self.figure)
        notebook = running_notebook()
        if notebook is not None:
            png = io.BytesIO()
            self.figure.savefig(png, format="png")
            picture = notebook.Image(data=png.getvalue())
            if self._shown is None:
                self._shown = notebook.display(picture, display_id=True)
            else:
                self._shown.update(picture)
        return self.figure


def running_notebook() -> Any:
    """IPython's display module where it runs, else None."""
    try:
        from IPython import display, get_ipython
    except ImportError:
        return None
    return display if get_ipython() is not None else None
