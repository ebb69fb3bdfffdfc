"""A timeline as a picture: lanes from the edge's draft at the top, through the cloud, to the text at the bottom."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.errors import ConfigError
from paceline.timeline.value import Fate, Lane, Span, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHTS = {
    Lane.DRAFT: 0.55,
    Lane.UPLINK: 1.1,
    Lane.QUEUE: 0.55,
    Lane.VERIFY: 0.55,
    Lane.DOWNLINK: 1.1,
    Lane.TEXT: 3.4,
}
ACCEPTED, OWN, REJECTED, QUIET = "#2a9d55", "#2f6fd0", "#d62828", "#9aa0a6"
FATES = {
    Fate.NONE: QUIET,
    Fate.ACCEPTED: ACCEPTED,
    Fate.PARTLY: "#e0a100",
    Fate.LATE: "#8d6e63",
    Fate.WASTED: REJECTED,
}
DRAFT, VERIFY, PREFILL = "#8e6bbf", "#2f6fd0", "#a9c3ea"
WAITS = {"drafts wait": "#e8c66a", "session waits": "#e07b39"}
WIDTH_INCHES, MOST_INCHES = 14.0, 60.0
COMMITS_PER_INCH = 6
DPI = 110


def check_picture() -> None:
    """Refuse early what could not be drawn later.

    Raises:
        ConfigError: matplotlib is not there.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "a picture needs matplotlib: install it with `pip install matplotlib`, or name a file that ends with .json"
        )


def draw(timeline: Timeline, path: Path) -> None:
    """Write a picture; the end of the name says which kind.

    Raises:
        ConfigError: matplotlib is not there.
        OSError: the file cannot be written.
    """
    check_picture()
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    width = min(MOST_INCHES, max(WIDTH_INCHES, len(timeline.commits) / COMMITS_PER_INCH))
    figure = Figure(figsize=(width, 9.0), layout="constrained")
    axes = figure.subplots(
        len(HEIGHTS),
        sharex=True,
        gridspec_kw={"height_ratios": list(HEIGHTS.values()), "hspace": 0.0},
    )
    lanes: dict[Lane, Any] = dict(zip(HEIGHTS, axes, strict=True))
    for lane, place in lanes.items():
        _prepare(place, lane)
    for span in timeline.spans:
        _draw_span(lanes[span.lane], span, least_s=timeline.end_s / 500)
    _draw_text(lanes[Lane.TEXT], timeline)
    _draw_happenings(lanes, timeline)
    _finish(figure, lanes, timeline)
    figure.savefig(path, dpi=DPI)


def _prepare(place: "Axes", lane: Lane) -> None:
    place.set_facecolor("#fafafa" if lane in {Lane.QUEUE, Lane.VERIFY} else "white")
    place.set_ylabel(
        lane.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=10, labelpad=8
    )
    place.grid(visible=True, axis="x", color="#e6e6e6", linewidth=0.6)
    place.set_axisbelow(True)
    place.tick_params(axis="x", length=0)
    if lane is not Lane.TEXT:
        place.set_yticks([])
        place.set_ylim(0.0, 1.0)


def _draw_span(place: "Axes", span: Span, *, least_s: float) -> None:
    """Draw a span; one that is shorter than `least_s` is drawn as a line, or nobody would see it."""
    begin_ms, end_ms = span.begin_s * 1000, span.end_s * 1000
    if span.lane in {Lane.UPLINK, Lane.DOWNLINK}:
        # What travels leaves at the top of its lane and arrives at the bottom: many are under way at once.
        color = FATES[span.fate] if span.lane is Lane.UPLINK else VERIFY
        if span.lane is Lane.DOWNLINK and not span.name.startswith("commit"):
            color = QUIET
        is_quiet = color == QUIET
        place.plot(
            [begin_ms, end_ms],
            [0.97, 0.03],
            color=color,
            linewidth=0.9 if is_quiet else 1.4,
            zorder=2 if is_quiet else 3,
            marker="v",
            markersize=3.5,
            markevery=[1],
            clip_on=False,
        )
        return
    colors = {Lane.DRAFT: DRAFT, Lane.VERIFY: PREFILL if span.name == "prefill" else VERIFY}
    color = WAITS[span.name] if span.lane is Lane.QUEUE else colors[span.lane]
    is_thin = span.name == "drafts wait"
    bottom, height = (0.14, 0.3) if is_thin else (0.14, 0.72)
    if span.name == "session waits":
        bottom, height = 0.52, 0.34
    place.broken_barh(
        [(begin_ms, end_ms - begin_ms)],
        (bottom, height),
        facecolor=color,
        linewidth=0.0,
    )
    is_short = span.end_s - span.begin_s < least_s
    if is_short or not is_thin:
        line = color if is_short else "white"
        place.plot([begin_ms, begin_ms], [bottom, bottom + height], color=line, linewidth=0.8)


def _draw_text(place: "Axes", timeline: Timeline) -> None:
    """Draw a mark for each token, where it stands in the text and when it was there."""
    steps: tuple[list[float], list[int]] = ([0.0], [0])
    marks: dict[str, tuple[list[float], list[float]]] = {
        color: ([], []) for color in (ACCEPTED, OWN, REJECTED)
    }
    for commit in timeline.commits:
        at_ms = commit.at_s * 1000
        steps[0].append(at_ms)
        steps[1].append(commit.end)
        for position, is_draft in enumerate(commit.accepted, start=commit.position):
            times, places = marks[ACCEPTED if is_draft else OWN]
            times.append(at_ms)
            places.append(position + 0.5)
        for position in commit.rejected:
            marks[REJECTED][0].append(at_ms)
            marks[REJECTED][1].append(position + 0.5)
    if timeline.reference is not None:
        times_ms = [at_s * 1000 for at_s in timeline.reference.times_s]
        place.step(
            [0.0, *times_ms],
            range(len(times_ms) + 1),
            where="post",
            color=QUIET,
            linestyle="--",
            linewidth=1.3,
        )
    place.step(*steps, where="post", color="#cfd3d8", linewidth=1.2)
    size = max(2.5, min(7.0, 170 / max(1, steps[1][-1])))
    for color in (ACCEPTED, OWN):
        place.plot(*marks[color], linestyle="", marker="s", markersize=size, color=color)
    place.plot(
        *marks[REJECTED], linestyle="", marker="x", markersize=size + 5, mew=1.4, color=REJECTED
    )
    place.set_ylim(0, max(1, steps[1][-1]) * 1.04)
    place.set_ylabel("text\n(tokens)", rotation=0, ha="right", va="center", fontsize=10, labelpad=8)
    place.locator_params(axis="y", integer=True)
    place.set_xlabel(
        "\n".join(["milliseconds from the start of the session", *timeline.notes]), fontsize=9
    )


def _draw_happenings(lanes: "dict[Lane, Axes]", timeline: Timeline) -> None:
    for happening in timeline.happenings:
        at_ms = happening.at_s * 1000
        for place in lanes.values():
            place.axvline(at_ms, color="black", linestyle=":", linewidth=1.0)
        lanes[Lane.DRAFT].annotate(
            happening.name, (at_ms, 1.02), fontsize=8, ha="left", annotation_clip=False
        )


def _finish(figure: "Figure", lanes: "dict[Lane, Axes]", timeline: Timeline) -> None:
    lanes[Lane.TEXT].set_xlim(0.0, max(1e-3, timeline.end_s * 1000) * 1.01)
    # A title is a name of the user's: a dollar in it is no mathematics.
    title = f"{timeline.title}\n{timeline.figures.sentence()}"
    figure.suptitle(title, fontsize=11, parse_math=False)
    figure.legend(
        handles=_legend(timeline), loc="outside lower center", ncols=6, fontsize=9, frameon=False
    )


def _legend(timeline: Timeline) -> list[Any]:
    """Return the key: only what is in the picture."""
    from matplotlib.lines import Line2D  # noqa: PLC0415 - as above
    from matplotlib.patches import Patch  # noqa: PLC0415

    def mark(label: str, color: str, marker: str) -> Line2D:
        return Line2D([], [], color=color, marker=marker, linestyle="", label=label, mew=1.8)

    there = {(span.lane, span.name) for span in timeline.spans}
    fates = {span.fate for span in timeline.spans if span.lane is Lane.UPLINK}
    handles: list[Any] = [
        Line2D([], [], color=color, label=f"proposal: {fate}")
        for fate, color in FATES.items()
        if fate in fates and fate is not Fate.NONE
    ]
    if Fate.NONE in fates:
        handles.append(Line2D([], [], color=QUIET, label="other messages"))
    handles.append(Line2D([], [], color=VERIFY, label="commit on its way"))
    if any(lane is Lane.DRAFT for lane, _ in there):
        handles.append(Patch(color=DRAFT, label="draft forward"))
    handles += [
        Patch(color=color, label=name)
        for name, color in WAITS.items()
        if (Lane.QUEUE, name) in there
    ]
    if (Lane.VERIFY, "prefill") in there:
        handles.append(Patch(color=PREFILL, label="prefill"))
    handles.append(Patch(color=VERIFY, label="step of the target"))
    flags = {flag for commit in timeline.commits for flag in commit.accepted}
    if True in flags:
        handles.append(mark("accepted draft", ACCEPTED, "s"))
    if False in flags:
        handles.append(mark("target's own token", OWN, "s"))
    if any(commit.rejected for commit in timeline.commits):
        handles.append(mark("draft rejected", REJECTED, "x"))
    if timeline.reference is not None:
        handles.append(Line2D([], [], color=QUIET, linestyle="--", label=timeline.reference.name))
    return handles
