"""The diagrams in the docs, drawn as SVG. To preview them, run ``python docs/diagrams.py``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import schemdraw
from schemdraw import elements, flow
from schemdraw.segments import SegmentText

schemdraw.use("svg")
schemdraw.svgconfig.text = "text"

Point = tuple[float, float]

_OURS: Final = "#d7e3fc"
_YOURS: Final = "#cdeac0"
_COVEO: Final = "#ffe5b4"
_BAD: Final = "#f8c8c8"
_PLAIN: Final = "#f4f4f4"
_LINE: Final = 0.36


class _Sheet:
    """A drawing whose unit is about the height of a line, with y growing downwards."""

    def __init__(self) -> None:
        self.drawing = schemdraw.Drawing(show=False)
        self.drawing.config(unit=1, fontsize=10, font="sans-serif", lw=1.2, margin=0.15, bgcolor="white")

    def box(self, at: Point, size: Point, text: str, fill: str = _PLAIN, round_corners: bool = False) -> None:
        """Draw a box with its upper left corner at a point."""
        width, height = size
        shape = flow.RoundBox if round_corners else flow.Box
        self.drawing.add(shape(w=width, h=height).at((at[0] + width / 2, -at[1])).anchor("N").fill(fill))
        self.text((at[0] + width / 2, at[1] + height / 2), text)

    def text(
        self, at: Point, text: str, size: float = 10, align: str = "center", color: str = "black"
    ) -> None:
        """Write lines of text centered on a point."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            y = at[1] + (number - (len(lines) - 1) / 2) * _LINE * size / 10 * 1.1
            label = elements.Element()
            label.segments.append(
                SegmentText((0, 0), line, align=(align, "center"), fontsize=size, color=color, rotation=0)
            )
            self.drawing.add(label.at((at[0], -y)).theta(0))

    def arrow(self, *points: Point, dashed: bool = False) -> None:
        """Draw an arrow along points."""
        for number, (begin, end) in enumerate(pairwise(points), start=2):
            line = (
                elements.Arrow(headwidth=0.12, headlength=0.18) if number == len(points) else elements.Line()
            )
            line = line.at((begin[0], -begin[1])).to((end[0], -end[1]))
            self.drawing.add(line.linestyle("--") if dashed else line)

    def line(self, begin: Point, end: Point, dashed: bool = False) -> None:
        """Draw a line."""
        line = elements.Line().at((begin[0], -begin[1])).to((end[0], -end[1]))
        self.drawing.add(line.linestyle("--") if dashed else line)


_made: dict[str, Callable[[_Sheet], None]] = {}


def _diagram(function: Callable[[_Sheet], None]) -> Callable[[_Sheet], None]:
    _made[function.__name__.replace("_", "-") + ".svg"] = function
    return function


@_diagram
def statuses(sheet: _Sheet) -> None:
    """The statuses of a source and the transitions between them."""
    sheet.box((-0.5, 1.6), (4.1, 1.2), "IDLE\n“Ready to receive content”", _OURS, round_corners=True)
    for row, (name, shown) in enumerate(
        [("REBUILD", "“Rebuild”"), ("REFRESH", "“Rescan”"), ("INCREMENTAL", "“Refresh”")]
    ):
        y = row * 1.6
        sheet.box((7.4, y), (3, 1.2), f"{name}\n{shown}", _COVEO, round_corners=True)
        middle = y + 0.6
        sheet.arrow((3.6, 2.0 if row == 0 else 2.15 if row == 1 else 2.3), (7.4, middle - 0.18))
        sheet.arrow((7.4, middle + 0.22), (3.6, 2.1 if row == 0 else 2.3 if row == 1 else 2.4))
    sheet.text((5.5, 0.35), "an update starts:\nan activity opens", size=9)
    sheet.text((5.5, 4.25), "an update ends:\nIDLE closes the activity", size=9)


@_diagram
def updates(sheet: _Sheet) -> None:
    """The part of the content that each kind of update reads and pushes."""
    everything, delta = 3.6, 0.5
    read, compared, pushed = 3.2, 7.4, 11.2
    for x, text in [(read, "your task reads"), (pushed, "Coveo receives")]:
        sheet.text((x, 0), text, size=9, align="left")
    for row, (status, reads, compares, sends, then) in enumerate(
        [
            ("REBUILD", everything, False, everything, "old items are deleted by time"),
            ("REFRESH", everything, True, delta, "missing items are deleted by ID"),
            ("INCREMENTAL", delta, False, delta, "deletions that the origin reports"),
        ]
    ):
        y = 0.4 + row * 1.8
        sheet.box((0, y), (2.6, 1), status, _COVEO, round_corners=True)
        sheet.box((read, y), (reads, 1), "everything" if reads == everything else "", _YOURS)
        if compares:
            sheet.arrow((read + reads, y + 0.5), (compared, y + 0.5))
            sheet.box((compared, y), (3, 1), "compare with\nthe snapshot", _OURS)
            sheet.arrow((compared + 3, y + 0.5), (pushed, y + 0.5))
        else:
            sheet.arrow((read + reads, y + 0.5), (pushed, y + 0.5))
        sheet.box((pushed, y), (sends, 1), "everything" if sends == everything else "", _YOURS)
        sheet.text((pushed - 1, y + 1.25), then, size=9, align="left")
        for x, width in ((read, reads), (pushed, sends)):
            if width == delta:
                sheet.text((x + delta + 0.15, y + 0.8), "what changed", size=9, align="left")


@_diagram
def accepted(sheet: _Sheet) -> None:
    """The stages of an item after Coveo has accepted it."""
    steps = [
        ("your task\npushes", _YOURS),
        ("Push API\nreturns 202", _COVEO),
        ("CONSUMING", _COVEO),
        ("PROCESSING", _COVEO),
        ("INDEXING", _COVEO),
        ("searchable", _OURS),
    ]
    width, gap = 2.1, 0.7
    for number, (text, fill) in enumerate(steps):
        x = number * (width + gap)
        sheet.box((x, 0), (width, 1), text, fill)
        if number:
            sheet.arrow((x - gap, 0.5), (x, 0.5))
        if 2 <= number <= 4:
            sheet.arrow((x + width / 2, 1), (x + width / 2, 2))
    begin = 2 * (width + gap)
    sheet.box(
        (begin, 2), (3 * width + 2 * gap, 1), "REJECTED, ERROR or SKIPPED:\nsee Coveo's item logs", _BAD
    )
    sheet.line((width + gap + width / 2, 1), (width + gap + width / 2, 3.6), dashed=True)
    sheet.text((width + gap + width / 2 + 0.15, 3.4), "the task ends here", size=9, align="left")
    end = 5 * (width + gap) + width / 2
    sheet.line((end, 1), (end, 3.6), dashed=True)
    sheet.text((end - 0.15, 3.4), "some minutes later", size=9, align="right")


@_diagram
def ordering_ids(sheet: _Sheet) -> None:
    """The items that a cut-off deletes."""
    sheet.arrow((0, 2.2), (14.6, 2.2))
    sheet.text((14.4, 1.95), "time", size=9, align="right")
    sheet.box((0.3, 0.2), (3.9, 1.1), "pushed by earlier runs,\nand not since", _BAD)
    sheet.box((5.6, 0.2), (4.2, 1.1), "pushed, or pushed again,\nby this run", _YOURS)
    for x, text in [
        (4.9, "open: REBUILD\ncut-off is saved"),
        (10.4, "delete_old_items\nis accepted"),
        (13.2, "deleted, after\nthe queue delay"),
    ]:
        sheet.line((x, 2.05), (x, 2.35))
        sheet.text((x, 2.85), text, size=9)
    sheet.line((4.9, 0), (4.9, 2.2), dashed=True)
    sheet.text((2.25, 1.65), "orderingId below the cut-off: deleted", size=9)
    sheet.text((7.7, 1.65), "orderingId at or above it: kept", size=9)


@_diagram
def bracket(sheet: _Sheet) -> None:
    """The tasks of push_source_update."""
    x = 0.0
    boxes: dict[str, float] = {}
    for name, width, note, fill in [
        ("begin", 1.5, "setup, does nothing", _OURS),
        ("open", 1.5, "setup: REBUILD", _OURS),
        ("your tasks", 2.3, "any", _YOURS),
        ("delete_old_items", 2.7, "if set", _OURS),
        ("close", 1.5, "teardown: IDLE", _OURS),
        ("outcome", 1.7, "teardown: result", _OURS),
        ("done", 1.3, "", _OURS),
    ]:
        sheet.box((x, 1), (width, 0.8), name, fill, round_corners=True)
        sheet.text((x + width / 2, 2.1), note, size=8.5)
        boxes[name] = x
        if x:
            sheet.arrow((x - 0.8, 1.4), (x, 1.4))
        x += width + 0.8
    work = boxes["your tasks"] + 1.15
    sheet.arrow((work, 1), (work, 0.35), (boxes["close"] + 0.5, 0.35), (boxes["close"] + 0.5, 1), dashed=True)
    sheet.text(((work + boxes["close"] + 0.5) / 2, 0.12), "close runs whatever their state", size=9)
    done = boxes["done"] + 0.65
    sheet.arrow((done + 0.65, 1.4), (done + 1.4, 1.4))
    sheet.box((done + 1.4, 1), (1.4, 0.8), "after", _YOURS, round_corners=True)
    sheet.text((done + 2.1, 2.1), "update >> after", size=8.5)


@_diagram
def batches(sheet: _Sheet) -> None:
    """The steps of push_items."""
    sheet.box((0, 1.2), (2.2, 1.2), "your items,\none by one", _YOURS)
    sheet.arrow((2.2, 1.8), (3, 1.8))
    sheet.box((3, 1.2), (2.4, 1.2), "validated and\nencoded, once", _OURS)
    for row in range(3):
        y = row * 1.2 + 0.1
        sheet.arrow((5.4, 1.8), (6.4, y + 0.4))
        sheet.box((6.4, y), (1.7, 0.8), f"batch {row + 1}", _OURS)
        sheet.arrow((8.1, y + 0.4), (9.1, y + 0.4))
        sheet.box((9.1, y), (2.4, 0.8), "upload (S3)", _COVEO)
        sheet.arrow((11.5, y + 0.4), (12.5, y + 0.4))
        sheet.box((12.5, y), (2.9, 0.8), f"documents/batch {row + 1}", _COVEO)
        if row:
            sheet.arrow((13.95, y - 0.4), (13.95, y))
    sheet.text((9.6, 3.85), "uploads: in parallel", size=9)
    sheet.text((13.95, 3.85), "accepted: in input order", size=9)


#: The layers of the package from top to bottom, as in the linter's contract.
LAYERS: Final = (
    ("plugins",),
    ("task_groups", "decorators"),
    ("bracket",),
    ("sensors",),
    ("operators", "triggers"),
    ("lineage",),
    ("links", "assets", "notifications", "cursors"),
    ("hooks",),
    ("content",),
    ("state", "transports"),
    ("airflow_errors",),
    ("coveo",),
)
_LAYER_TITLES: Final = {
    "airflow_errors": "airflow_errors.py",
    "coveo": "coveo/   (knows nothing of Airflow)",
}


@_diagram
def layers(sheet: _Sheet) -> None:
    """The layers of the package; a layer can import those below it."""
    for number, row in enumerate(LAYERS):
        y = number * 0.95
        width = (7.8 - 0.4 * (len(row) - 1)) / len(row)
        for column, name in enumerate(row):
            title = _LAYER_TITLES.get(name, f"{name}/")
            sheet.box((column * (width + 0.4), y), (width, 0.7), title, _OURS)
    bottom = (len(LAYERS) - 1) * 0.95
    sheet.box((9.4, bottom - 1.9), (3.2, 0.7), "simulator/", _COVEO)
    sheet.arrow((11, bottom - 1.2), (11, bottom + 0.35), (7.8, bottom + 0.35))
    sheet.arrow((8.4, 0), (8.4, bottom + 0.1))
    sheet.text((8.6, 1.2), "imports go\ndownwards only", size=9, align="left")


@_diagram
def client(sheet: _Sheet) -> None:
    """The way of a request, in a worker above and in a triggerer below."""
    rows = [
        (
            0.0,
            (
                "operators/",
                "hooks/\ncoveo_push.py",
                "coveo/client/\none class\na resource",
                "coveo/caller.py\nCaller",
            ),
            "transports/\nrequests_\ntransport.py",
        ),
        (
            3.2,
            ("triggers/", "hooks/\nasync_client.py", "coveo/\nconditions.py", "coveo/caller.py\nAsyncCaller"),
            "transports/\naiohttp_\ntransport.py",
        ),
    ]
    for y, steps, last in rows:
        x = 0.0
        for text in (*steps, last):
            sheet.box((x, y), (2.6, 1.3), text, _PLAIN if text == steps[0] else _OURS)
            if x:
                sheet.arrow((x - 0.6, y + 0.65), (x, y + 0.65))
            x += 3.2
        sheet.arrow((x - 0.6, y + 0.65), (x, y + 0.65))
    sheet.box((16.0, 0.0), (2.0, 4.5), "Coveo", _COVEO)
    sheet.text((7.7, 2.25), "Request, Response, Call: built and parsed by the same functions", size=9)


@_diagram
def recreate(sheet: _Sheet) -> None:
    """The steps of recreating a source."""
    steps = [
        ("duplicate\nthe source", _OURS),
        ("push a test item,\nwait until indexed", _OURS),
        ("write the new ID\ninto a Variable", _OURS),
        ("fill the copy\n(your tasks)", _YOURS),
        ("someone\napproves", _COVEO),
        ("delete the\nold source", _BAD),
    ]
    x = 0.0
    for number, (text, fill) in enumerate(steps):
        sheet.box((x, 0.9), (2.9, 1.1), text, fill)
        if number:
            sheet.arrow((x - 0.5, 1.45), (x, 1.45))
        x += 3.4
    for begin, end, name in [(0, 2, "recreate"), (4, 4, "approve"), (5, 5, "delete_old")]:
        left, right = begin * 3.4, end * 3.4 + 2.9
        sheet.line((left, 0.6), (right, 0.6))
        sheet.text(((left + right) / 2, 0.3), name, size=9.5)


def _drawn(draw: Callable[[_Sheet], None]) -> str:
    sheet = _Sheet()
    draw(sheet)
    image: bytes = sheet.drawing.get_imagedata("svg")
    return image.decode()


#: The function that draws each diagram, by file name.
DIAGRAMS: Final[dict[str, Callable[[], str]]] = {
    name: (lambda draw=draw: _drawn(draw)) for name, draw in _made.items()
}

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent / "_parts"
    folder.mkdir(exist_ok=True)
    for file_name, drawn in DIAGRAMS.items():
        (folder / file_name).write_text(drawn())
