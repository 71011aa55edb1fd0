"""Style of the figures: sizes and fonts of a two-column paper, colour-blind-safe colours, saving."""

import contextlib
import functools
import itertools
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

P = ParamSpec("P")
#: That many colours; and the keywords of a line or of points.
Colors = Callable[[int], list[Any]]
Look = dict[str, Any]

#: Widths in inches of a column and of the text of a two-column page.
COLUMN, TEXT = 3.3, 6.8
#: Pixels per inch in a notebook.
_SCREEN = 96
#: Okabe and Ito's palette, distinguishable with every common colour vision; black is reserved for theory.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A800")
MARKERS = "os^Dv<>P"
#: Theory in every figure: a thin black or dashed line.
THEORY: Look = {"color": "black", "linewidth": 0.9, "linestyle": "--"}
BAND: Look = {"alpha": 0.2, "linewidth": 0}

_PARAMETERS = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "mathtext.fontset": "cm",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=PALETTE),
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 220,
    "pdf.fonttype": 42,
    "svg.hashsalt": "deepbures",
}


def panels(
    rows: int = 1, columns: int = 1, width: float = COLUMN, height: float = 2.3, **options: Any
) -> tuple[Figure, Any]:
    """Figure and axes (always a rows × columns array); sizes in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)


def row(number: int, height: float, width: float = TEXT, **options: Any) -> tuple[Figure, list[Axes]]:
    """Figure and its axes side by side; sizes in inches."""
    figure, axes = panels(1, number, width, height, **options)
    return figure, list(axes[0])


def empty(width: float = COLUMN, height: float = 2.3) -> Figure:
    """Figure without axes, for subfigures; sizes in inches."""
    return plt.figure(figsize=(width, height))


def without(data: str) -> Figure:
    """Figure with the reason why an experiment cannot be drawn."""
    figure = empty()
    figure.text(0.5, 0.5, f"not drawn: {data}", ha="center", va="center", wrap=True)
    return figure


def band(axis: Any, x: Any, values: Sequence[Any], color: Any, form: str = "-", **line: Any) -> None:
    """A line, and a band of its colour around it: `values` are those of the line, and the lower and upper ones."""
    middle, low, high = values
    axis.plot(x, middle, form, color=color, **line)
    axis.fill_between(x, low, high, color=color, **BAND)


def key(axis: Any, entries: Iterable[tuple[str, Look]], **options: Any) -> None:
    """A legend of lines that are described by name and keywords, and not drawn."""
    lines = [Line2D([], [], **{"color": "gray", "markersize": 3, **look}, label=name) for name, look in entries]
    axis.legend(handles=lines, **{"fontsize": 6, **options})


def legend(axis: Any, **options: Any) -> None:
    """The legend of an axis, if anything on it has a name."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(**options)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """The settings of the study over matplotlib's own defaults, whatever any matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_PARAMETERS)
        yield


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw a figure in the style of the study, and leave matplotlib's settings as they were."""

    @functools.wraps(function)
    def draw(*arguments: P.args, **options: P.kwargs) -> Figure:
        with _style():
            figure = function(*arguments, **options)
            for axes in figure.axes:
                for axis in (axes.xaxis, axes.yaxis):
                    _label_logarithms(axis)
            return figure

    return draw


def lettered(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """As `styled`, with a letter (a), (b), …, (z), (aa), … at the upper left of each panel."""

    @functools.wraps(function)
    def draw(*arguments: P.args, **options: P.kwargs) -> Figure:
        figure = function(*arguments, **options)
        panels = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
        pairs = map("".join, itertools.product(string.ascii_lowercase, repeat=2))
        for letter, axes in zip(itertools.chain(string.ascii_lowercase, pairs), panels, strict=False):
            title = axes.get_title()
            axes.set_title("")
            axes.set_title(f"({letter}) {title}".rstrip(), loc="left")
        return figure

    return styled(draw)


def _label_logarithms(axis: Axis) -> None:
    """Label 1, 2, 5 on a logarithmic axis that shows fewer than two powers of 10.

    matplotlib's own labels overlap there. Ticks that were set one by one stay.
    """
    if axis.get_scale() != "log" or not isinstance(axis.get_major_locator(), LogLocator):
        return
    low, high = np.sort(axis.get_view_interval())
    decades = np.log10([low, high])
    if np.floor(decades[1]) - np.ceil(decades[0]) >= 1:
        return
    ticks = [
        digit * 10.0**power for power in range(int(np.floor(decades[0])), int(decades[1]) + 2) for digit in (1, 2, 5)
    ]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_major_locator(FixedLocator(shown) if len(shown) > 1 else MaxNLocator(3, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    """A tick in digits, or with a power of 10 where there would be many digits."""
    if value == 0 or 1e-4 <= abs(value) < 1e4:
        return f"{value:g}"
    power = int(np.floor(np.log10(abs(value)) + 1e-9))
    return rf"${value / 10.0**power:g} \times 10^{{{power}}}$"


def sequential(number: int) -> list[Any]:
    """Colours for ordered values, dark to light (cividis, without its lightest end)."""
    return [mpl.colormaps["cividis"](i / max(number - 1, 1) * 0.88) for i in range(number)]


def distinct(number: int) -> list[Any]:
    """That many distinguishable colours: from the palette, or from a sequence where the palette has too few."""
    return list(PALETTE[:number]) if number <= len(PALETTE) else sequential(number)


def looks(number: int, colors: Colors = sequential) -> list[Look]:
    """Keywords of that many lines, each with a colour and a marker of its own."""
    pairs = zip(colors(number), itertools.cycle(MARKERS), strict=False)
    return [{"color": color, "marker": marker} for color, marker in pairs]


def ticks(axis: Axis, places: Sequence[float], form: Any) -> None:
    """Major ticks at the given places only, labelled in a form."""
    axis.set_ticks(places, minor=False)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(form)


class Saved(NamedTuple):
    """A written figure. A notebook shows its PNG instead of drawing it once more."""

    png: Path
    width: float  #: in inches

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png.read_bytes(), {"width": round(self.width * _SCREEN)}


def save(figure: Figure, folder: str | Path, name: str) -> Saved:
    """Write `folder/name.pdf` and `.png`, the same bytes for the same figure, and close it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _style():
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})
        # It is laid out: that takes as long as drawing, and so does an engine that does nothing.
        mpl.rcParams["figure.constrained_layout.use"] = False
        figure.set_layout_engine(None)
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    plt.close(figure)
    return Saved(folder / f"{name}.png", figure.get_figwidth())
