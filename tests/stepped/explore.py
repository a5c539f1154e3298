"""
Plays random sequences of events on all shapes, and checks the bracket's guarantee after each.

A seed determines a shape and a sequence. After a violation, the sequence is shrunk: events are dropped while
the same invariant is still violated. The output can be pasted as a test.

    python -m tests.stepped.explore --seeds 1-1000 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stepped.engine import Engine

Event = tuple[Any, ...]
#: The number of events of a sequence, without the scheduler's turns.
EVENTS = 12
#: The number of steps of a task that Airflow took away, until its supervisor learns of it.
LINGERS = 2
WATCHDOG_HOURS = 7
#: The faults of Coveo or the network, and the probability of each.
_REFUSALS = {
    "refuse:503": 3,
    "refuse-later:503": 3,
    "refuse-applied:503": 2,
    "refuse:429": 1,
    "refuse:401": 1,
    "refuse:403": 2,
    "lose": 2,
}
_OTHER_RUNS = {"exclusive": "exclusive_other"}


def make_engine() -> Engine:
    """Create the stepped Airflow of this process, with all shapes."""
    from tests.stepped import shapes
    from tests.stepped.engine import Engine

    engine = Engine()
    engine.add(
        *[make() for make in shapes.SHAPES.values()],
        shapes.other(),
        shapes.exclusive_other(),
        shapes.watchdog(),
    )

    def told(run_id: str, task_id: str, map_index: int) -> str:
        words = engine.told.get((run_id, task_id, map_index)) or engine.told.get((run_id, task_id, -1))
        return words.pop(0) if words else ""

    shapes.told = told
    return engine


# --- one sequence ---


@dataclass
class Played:
    """
    The result of a sequence.

    :param shape: its DAG.
    :param events: its events.
    :param violations: the violated invariants, as ``(invariant, what)``.
    :param story: the whole story, for people.
    :param seconds: the CPU time.
    :param words: the number of requests to Coveo, by kind.
    """

    shape: str
    events: list[Event]
    violations: list[tuple[str, str]] = field(default_factory=list)
    story: str = ""
    seconds: float = 0.0
    seed: int = 0
    words: Counter[str] = field(default_factory=Counter)

    def signatures(self) -> dict[str, tuple[str, str]]:
        """Return the violations by kind, without names of tasks and numbers."""
        return {signature(self.shape, *violation): violation for violation in self.violations}


def signature(shape: str, invariant: str, what: str) -> str:
    """Return the kind of a violation, so that the same one gets the same name."""
    return f"{shape} {invariant}: " + re.sub(r"\[\d\]|\d+ ms|\b[a-w]\d?\.", "", what)


def play(engine: Engine, shape: str, events: Iterable[Event], *, strictly: bool = False) -> Played:
    """
    Play a sequence to its end, and check the invariants.

    :param engine: the stepped Airflow.
    :param shape: the DAG of run ``a``.
    :param events: the events, as :class:`Director` created them.
    :param strictly: whether an event that can't be played is an error; otherwise, it is skipped.
    """
    director = Director(engine, shape)
    played = []
    for event in events:
        if director.do(event, strictly=strictly):
            played.append(event)
    return director.end(played)


def play_seed(engine: Engine, seed: int, shapes: Sequence[str] | None = None) -> Played:
    """Play the sequence of a seed."""
    from tests.stepped.shapes import SHAPES

    chance = random.Random(seed)  # noqa: S311 - a game
    director = Director(engine, chance.choice(list(shapes or SHAPES)))
    played = []
    for _ in range(EVENTS * 3):
        if sum(event[0] != "tick" for event in played) > EVENTS:
            break
        event = director.draw(chance)
        if director.do(event):
            played.append(event)
        if event != ("tick",) and chance.random() < 0.7:
            director.do(("tick",))
            played.append(("tick",))
    ended = director.end(played)
    ended.seed = seed
    return ended


class Director:
    """
    Plays the events of one sequence.

    :param engine: the stepped Airflow.
    :param shape: the DAG of run ``a``.
    """

    def __init__(self, engine: Engine, shape: str) -> None:
        from tests.stepped.invariants import brackets_of

        self.engine = engine
        self.shape = shape
        self.began = time.process_time()
        self.trouble = ""
        engine.reset()
        for source in ("one", "two"):
            engine.push_as_somebody_else(source)
        engine.seen.clear()
        if shape == "named_by_variable":
            engine.set_variable("s", "one")
        dag = engine.dags[shape]
        self.tasks = [task.task_id for task in dag.tasks]
        self.members = sorted({task for each in brackets_of(dag) for task in each.members | each.after})
        self.groups = sorted({task.rpartition(".")[0] for task in self.tasks if "." in task})
        engine.trigger("a", shape)

    def do(self, event: Event, *, strictly: bool = False) -> bool:
        """Play an event, and return whether it was possible."""
        from tests.stepped.engine import Unplayable

        if self.trouble:
            return False
        kind, *arguments = event
        noted = len(self.engine.log)
        try:
            getattr(self, f"_{kind}")(*arguments)
        except Unplayable:
            if strictly:
                raise
            # It did not happen.
            del self.engine.log[noted:]
            return False
        except Exception:
            self.trouble = traceback.format_exc(limit=-6)
        return True

    def end(self, played: list[Event]) -> Played:
        """Let everything end, and check the invariants."""
        from tests.stepped.invariants import ACTIVE, Judge

        engine = self.engine
        violations: list[tuple[str, str]] = []
        try:
            if not self.trouble:
                engine.settle()
                violations = [(each.invariant, each.what) for each in Judge(engine).violations()]
                active = [source for source in ("one", "two") if engine.last_status(source) in ACTIVE]
                # Where a run is active, it sees only at its second check that nothing changes.
                for _ in range(2 if active else 0):
                    self._watch()
                    engine.settle()
                if active:
                    left = [source for source in active if engine.last_status(source) in ACTIVE]
                    if left:
                        violations.append(("B8", f"the watchdog leaves {' and '.join(left)} active"))
        except Exception:
            self.trouble = traceback.format_exc(limit=-4)
        if self.trouble:
            violations.append(("HARNESS", self.trouble.splitlines()[-1]))
        story = engine.story() + (f"\n{self.trouble}" if self.trouble else "")
        seconds = time.process_time() - self.began
        words = Counter(seen.word for seen in engine.seen if seen.word)
        return Played(self.shape, played, violations, story, seconds, words=words)

    # --- events ---

    def _tick(self) -> None:
        self.engine.tick()

    def _step(self, name: str, order: str = "go") -> None:
        self.engine.step(name, order)

    def _finish(self, name: str) -> None:
        self.engine.finish(name)

    def _kill(self, name: str) -> None:
        self.engine.kill(name)

    def _notice(self, name: str, how: str) -> None:
        self.engine.notice(name, how)

    def _terminate(self, name: str) -> None:
        self.engine.terminate(name)

    def _lose_callback(self, name: str) -> None:
        self.engine.lose_callback(name)

    def _clear(self, key: str, tasks: Sequence[str], **_: Any) -> None:
        self.engine.clear(key, *tasks)

    def _clear_with(self, key: str, tasks: Sequence[str], options: dict[str, bool]) -> None:
        self.engine.clear(key, *tasks, **options)

    def _clear_run(self, key: str, only_failed: bool = False) -> None:
        self.engine.clear_run(key, only_failed=only_failed)

    def _mark(self, key: str, task: str, state: str, options: dict[str, bool]) -> None:
        self.engine.mark(key, task, state, **options)

    def _mark_group(self, key: str, group: str, state: str) -> None:
        self.engine.mark_group(key, group, state)

    def _mark_run(self, key: str, state: str) -> None:
        self.engine.mark_run(key, state)

    def _pause(self, paused: bool) -> None:
        self.engine.pause(self.shape, paused)

    def _delete_run(self, key: str) -> None:
        self.engine.delete_run(key)

    def _tell(self, key: str, task: str, what: str) -> None:
        self.engine.tell(key, task, what)

    def _trigger(self, key: str, dag_id: str) -> None:
        from tests.stepped.engine import Unplayable

        if key in self.engine.run_dags:
            raise Unplayable(f"run {key} is there")
        self.engine.trigger(key, dag_id)

    def _watch(self) -> None:
        """Run the watchdog, hours later."""
        name = self._start_watch()
        if name:
            self.engine.finish(name)
            self.engine.tick()

    def _start_watch(self) -> str:
        """Start the watchdog's task, hours later, and return its name; it is stepped like others."""
        engine = self.engine
        engine.let_time_pass(WATCHDOG_HOURS * 3600)
        key = f"w{sum(key.startswith('w') for key in engine.run_dags) + 1}"
        engine.trigger(key, "watchdog")
        for _ in range(6):
            engine.tick()
            if any(actor.name == f"{key}.watch" for actor in engine.runnable()):
                return f"{key}.watch"
        return ""

    def _retries_due(self) -> None:
        self.engine.retries_due()

    def _fire(self, name: str) -> None:
        self.engine.fire(name)

    def _time_run_out(self, key: str) -> None:
        self.engine.time_run_out(key)

    def _variable(self, value: str) -> None:
        self.engine.set_variable("s", value)

    def _settle(self) -> None:
        self.engine.settle()

    # --- chance ---

    def draw(self, chance: random.Random) -> Event:
        """Choose the next event among the possible ones."""
        engine = self.engine
        choices: list[tuple[float, Event]] = []
        runs = [key for key in engine.run_dags if key not in engine.deleted_runs]
        self._draw_work(chance, choices)
        key = chance.choice([key for key in runs if engine.run_dags[key] == self.shape] or [""])
        if key:
            self._draw_people(chance, choices, key)
        if not any(engine.run_dags.get(other) == self.shape for other in ("b",)):
            choices.append((0.5, ("trigger", "b", self.shape)))
        if "c" not in engine.run_dags:
            choices.append((0.4, ("trigger", "c", _OTHER_RUNS.get(self.shape, "other"))))
        goes_on = any(state in {"running", "queued"} for state in engine.run_states().values())
        if goes_on and not self._works():
            choices.append((6, ("tick",)))
        choices += [(0.15, ("watch",)), (0.1, ("start_watch",)), (0.9 if goes_on else 0.05, ("settle",))]
        states = [state for run in runs for state in engine.states(run).values()]
        if {"up_for_retry", "up_for_reschedule"}.intersection(states):
            choices.append((2, ("retries_due",)))
        for run in runs:
            for (task_id, index), state in engine.states(run).items():
                if state == "deferred":
                    choices.append((2, ("fire", engine.name_of(run, task_id, index))))
        if self.shape == "timed" and key:
            choices.append((1, ("time_run_out", key)))
        if self.shape == "named_by_variable":
            choices.append((1.5, ("variable", chance.choice(["one", "two"]))))
        weights = [weight for weight, _ in choices]
        return chance.choices([event for _, event in choices], weights)[0]

    def _works(self) -> bool:
        return any(not actor.ended for actor in self.engine.runnable())

    def _draw_work(self, chance: random.Random, choices: list[tuple[float, Event]]) -> None:
        engine = self.engine
        for process in (*engine.processes, *engine.callbacks):
            actor = process.actor
            if actor.ended:
                continue
            is_orphan = process in engine.processes and engine.is_orphan(process)
            if is_orphan:
                choices.append((3, ("terminate", actor.name)))
                if actor.lingered < LINGERS and not engine.is_late(process):
                    choices.append((3, ("step", actor.name)))
                continue
            choices += [(4, ("finish", actor.name)), (3, ("step", actor.name))]
            if process in engine.callbacks:
                if actor.at == "start":
                    choices.append((0.3, ("lose_callback", actor.name)))
            elif actor.at != "start":
                choices.append((2.0, ("kill", actor.name)))
            if engine.drops_writes and process in engine.processes and actor.at in {"request", "answered"}:
                choices.append((0.6, ("step", actor.name, "drop_write")))
            if actor.at == "request":
                order = chance.choices(list(_REFUSALS), list(_REFUSALS.values()))[0]
                if order != "lose":
                    choices.append((2.0, ("step", actor.name, order)))
            elif actor.at == "answered":
                choices.append((0.4, ("step", actor.name, "lose")))
        for process in engine.killed:
            how = chance.choice(["supervisor", "executor", "heartbeat"])
            choices.append((3, ("notice", process.actor.name, how)))

    def _draw_people(self, chance: random.Random, choices: list[tuple[float, Event]], key: str) -> None:
        engine = self.engine
        states = engine.states(key)
        # A finished run is cleared, because marking it finds less.
        goes_on = engine.run_states().get(key) in {"running", "queued"}
        rarely = 1.0 if goes_on else 0.3
        named = [
            engine.name_of(key, *place).partition(".")[2] for place in states if place[0] in self.tasks
        ] or [self.tasks[0]]
        task = chance.choice(named)
        options = {
            "downstream": chance.random() < 0.6,
            "upstream": chance.random() < 0.15,
            "only_failed": chance.random() < 0.35,
        }
        choices.append((1.0, ("clear_with", key, [task], options)))
        several = sorted({task, chance.choice(named)})
        choices.append((0.2, ("clear_with", key, several, options)))
        choices.append((0.3, ("clear_run", key, chance.random() < 0.4)))
        state = chance.choice(["success", "failed", "failed", "skipped"])
        marks = {name: options[name] for name in ("downstream", "upstream")}
        if chance.random() < 0.5:
            marks["downstream"] = False
        choices.append((0.9 * rarely, ("mark", key, task, state, marks)))
        if self.groups:
            choices.append((0.35 * rarely, ("mark_group", key, chance.choice(self.groups), state)))
        choices.append((0.5 * rarely, ("mark_run", key, chance.choice(["success", "failed"]))))
        choices += [(0.1, ("pause", True)), (0.1, ("pause", False)), (0.1, ("delete_run", key))]
        if self.members:
            member = chance.choice(self.members)
            choices.append((0.5 * rarely, ("tell", key, member, chance.choice(["fail", "fail", "skip"]))))
        if self.shape == "branch":
            choices.append((0.6, ("tell", key, "choose", "skip")))


# --- shrinking ---


def shrink(engine: Engine, found: Played, wanted: str) -> Played:
    """Drop events while the same kind of violation of that invariant remains."""
    best = found
    parts = 2
    while len(best.events) > 1:
        size = max(1, len(best.events) // parts)
        for start in range(0, len(best.events), size):
            rest = best.events[:start] + best.events[start + size :]
            shorter = play(engine, found.shape, rest)
            if wanted in shorter.signatures():
                best = shorter
                break
        else:
            if size == 1:
                break
            parts = min(len(best.events), parts * 2)
    return best


def script(played: Played) -> str:
    """Return a sequence as the code of a test."""
    lines = ",\n        ".join(repr(event) for event in played.events)
    return f"play(\n    engine,\n    {played.shape!r},\n    [\n        {lines},\n    ],\n)"


# --- many ---


@dataclass
class Figures:
    """The results of many sequences."""

    sequences: int = 0
    cpu_seconds: float = 0.0
    events: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[int]] = field(default_factory=dict)
    reports: list[str] = field(default_factory=list)

    def add(self, played: Played) -> None:
        self.sequences += 1
        self.cpu_seconds += played.seconds
        self.events += sum(event[0] != "tick" for event in played.events)
        self.shapes[played.shape] += 1
        self.kinds.update(_kind(event) for event in played.events)
        self.words += played.words
        for each in played.signatures():
            self.found.setdefault(each, []).append(played.seed)

    def merge(self, other: Figures) -> None:
        self.sequences += other.sequences
        self.cpu_seconds += other.cpu_seconds
        self.events += other.events
        self.shapes += other.shapes
        self.kinds += other.kinds
        self.words += other.words
        for each, seeds in other.found.items():
            self.found.setdefault(each, []).extend(seeds)
        self.reports += other.reports

    def describe(self, seconds: float) -> str:
        """Return them as text."""
        count = max(1, self.sequences)
        rate = self.sequences / seconds * 3600
        each = f"{self.cpu_seconds / count:.2f} s of CPU and {self.events / count:.1f} events each"
        violating = {seed for seeds in self.found.values() for seed in seeds}
        lines = [
            f"{self.sequences} sequences in {seconds:.0f} s, {rate:.0f} an hour, {each}",
            "shapes: " + ", ".join(f"{name} {number}" for name, number in self.shapes.most_common()),
            "events: " + ", ".join(f"{name} {number}" for name, number in self.kinds.most_common()),
            "Coveo saw: " + ", ".join(f"{name} {number}" for name, number in self.words.most_common()),
            f"{len(self.found)} kinds of violation in {len(violating)} sequences",
        ]
        for kind, seeds in sorted(self.found.items(), key=lambda item: -len(item[1])):
            lines.append(f"  {len(seeds):4} times {kind} (seeds {', '.join(map(str, sorted(seeds)[:5]))})")
        return "\n".join(lines)


def _kind(event: Event) -> str:
    kind = str(event[0])
    if kind == "step" and len(event) > 2:
        return f"step {event[2]}"
    if kind in {"mark", "mark_run", "mark_group"}:
        return f"{kind} {event[3] if kind != 'mark_run' else event[2]}"
    return f"{kind} {event[2]}" if kind == "notice" else kind


def explore(
    seeds: Iterable[int],
    *,
    shapes: Sequence[str] | None = None,
    shrinks: bool = True,
    drops_writes: bool = False,
    progress: int = 0,
) -> Figures:
    """
    Play the sequences of seeds in this process; each kind of violation is shrunk once.

    :param progress: the number of sequences between two prints of the figures; 0 for only at the end.
    """
    began = time.monotonic()
    engine = make_engine()
    engine.drops_writes = drops_writes
    figures = Figures()
    for seed in seeds:
        played = play_seed(engine, seed, shapes)
        known = set(figures.found)
        figures.add(played)
        if progress and figures.sequences % progress == 0:
            print(figures.describe(time.monotonic() - began), end="\n\n", flush=True)
        for wanted, (invariant, what) in played.signatures().items():
            if wanted in known or invariant == "HARNESS":
                if invariant == "HARNESS":
                    report = f"seed {seed}: the harness failed\n{played.story}\n{script(played)}"
                    figures.reports.append(report)
                    print(report, end="\n\n", flush=True)
                continue
            shortest = shrink(engine, played, wanted) if shrinks else played
            report = (
                f"seed {seed}, {shortest.shape}, {invariant}: {what}\n{shortest.story}\n{script(shortest)}"
            )
            figures.reports.append(report)
            print(report, end="\n\n", flush=True)
    return figures


def _in_process(arguments: tuple[list[int], dict[str, Any]]) -> Figures:
    from tests.stepped.airflow_home import make_home

    seeds, options = arguments
    make_home()
    return explore(seeds, **options)


def main() -> int:
    """Explore according to the command line; return 1 if there is a violation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seeds", default="1-100", help="such as 17 or 1-1000")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--shapes", default="", help="only these, with commas")
    parser.add_argument("--no-shrinking", action="store_true")
    about_writes = "let writes of Variables be lost, as Airflow 3.0 to 3.2 do where one fails"
    parser.add_argument("--drop-writes", action="store_true", help=about_writes)
    about_progress = "print each process' figures after so many sequences"
    parser.add_argument("--progress", type=int, default=0, help=about_progress)
    parser.add_argument("--json", default="", help="a file for the figures")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    shapes = [name for name in options.shapes.split(",") if name] or None
    began = time.monotonic()
    how = {
        "shapes": shapes,
        "shrinks": not options.no_shrinking,
        "drops_writes": options.drop_writes,
        "progress": options.progress,
    }
    shares = [(seeds[job :: options.jobs], how) for job in range(options.jobs)]
    figures = Figures()
    if options.jobs == 1:
        figures = _in_process(shares[0])
    else:
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            for each in pool.imap_unordered(_in_process, shares):
                figures.merge(each)
    print(figures.describe(time.monotonic() - began))
    if options.json:
        figures_of_it = {"found": figures.found, "reports": figures.reports}
        Path(options.json).write_text(json.dumps(figures_of_it, indent=1))
    return 1 if figures.found else 0


if __name__ == "__main__":
    sys.exit(main())
