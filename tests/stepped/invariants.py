"""
The invariants after every sequence: B1 to B8 of the bracket's guarantee, judged by the requests to Coveo.

Nothing here reads the provider's records. If Airflow itself makes an invariant impossible in a sequence, the
code makes an exception, with a comment that explains it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.stepped.engine import FINISHED, Engine, Seen, short

OWN = frozenset({"begin", "open", "close", "outcome", "done", "delete_old_items"})
ACTIVE = frozenset({"REBUILD", "REFRESH", "INCREMENTAL"})
LIVE_RUNS = frozenset({"running", "queued"})
FINISHED_STATES = frozenset(FINISHED)


@dataclass(frozen=True)
class Violation:
    """
    A violated invariant.

    :param invariant: its name, such as ``B1``.
    :param what: a description.
    """

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


@dataclass(frozen=True)
class Bracket:
    """One ``push_source_update`` of a DAG: its group, its members, and the tasks after it."""

    dag_id: str
    group: str
    members: frozenset[str]
    own: frozenset[str]
    after: frozenset[str]
    exclusive: bool
    deletes: bool
    mapped: bool

    def holds(self, task_id: str) -> bool:
        return task_id in self.members or task_id in self.own


@dataclass
class Place:
    """A bracket in a run, with its map index if it is mapped."""

    bracket: Bracket
    run: str
    map_index: int
    opened: bool = False
    sources: set[str] = field(default_factory=set)

    def key(self) -> tuple[str, str, int]:
        return self.run, self.bracket.group, self.map_index


def brackets_of(dag: Any) -> list[Bracket]:
    """Find the brackets of a DAG by the task names in the guide, and their members by the graph."""
    found = []
    for task in dag.tasks:
        if short(task.task_id) != "open":
            continue
        group = task.task_id.rpartition(".")[0]
        own = {f"{group}.{name}" for name in OWN} & set(dag.task_dict)
        close = dag.get_task(f"{group}.close")
        below = task.get_flat_relative_ids(upstream=False)
        between = below & close.get_flat_relative_ids(upstream=True)
        # Every task downstream of `open` is a member, even if the bracket's wiring missed it.
        inside = {other for other in dag.task_dict if other.startswith(f"{group}.")}
        direct = set(task.downstream_task_ids)
        others_own = {
            f"{other.task_id.rpartition('.')[0]}.{name}"
            for other in dag.tasks
            if short(other.task_id) == "open"
            for name in OWN
        }
        members = (between | inside | direct) - own - others_own
        done = f"{group}.done"
        after = dag.get_task(done).get_flat_relative_ids(upstream=False) - members - own
        found.append(
            Bracket(
                dag.dag_id,
                group,
                frozenset(members),
                frozenset(own),
                frozenset(after - others_own),
                # The names in the shapes.
                dag.dag_id.startswith("exclusive"),
                f"{group}.delete_old_items" in own,
                task.get_closest_mapped_task_group() is not None,
            )
        )
    return found


class Judge:
    """
    Judges a sequence that an engine has played.

    :param engine: the engine, whose sequence has ended.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.brackets = {dag_id: brackets_of(engine.dags[dag_id]) for dag_id in set(engine.run_dags.values())}
        self.states = {key: engine.states(key) for key in engine.run_dags}
        self.runs = engine.run_states()

    def violations(self) -> list[Violation]:
        """Return all violations, each invariant once."""
        found: dict[str, Violation] = {}
        for check in (self.b1, self.b2, self.b3, self.b4, self.b5, self.b6, self.b7, self.b8):
            for violation in check():
                found.setdefault(violation.invariant, violation)
        return list(found.values())

    # --- senders of requests ---

    def bracket_of(self, seen: Seen) -> Bracket | None:
        """Return the bracket of a request, by the task that sent it."""
        for bracket in self.brackets.get(seen.dag_id, []):
            if bracket.holds(seen.task_id):
                return bracket
        return None

    def place_of(self, seen: Seen) -> tuple[str, str, int] | None:
        bracket = self.bracket_of(seen)
        if bracket is None:
            return None
        return seen.run, bracket.group, seen.map_index if bracket.mapped else -1

    def _states_of(
        self, states: dict[tuple[str, int], str | None], tasks: frozenset[str], map_index: int = -1
    ) -> dict[tuple[str, int], str | None]:
        return {
            place: state
            for place, state in states.items()
            if place[0] in tasks and (map_index < 0 or place[1] in (-1, map_index))
        }

    def _works(self, place: tuple[str, str, int], at: Seen, opened: Seen) -> bool:
        """
        Return whether a bracket had work left, besides closing, when a request was sent.

        :param place: the bracket.
        :param at: the request.
        :param opened: its last opening before the request.
        """
        run, group, map_index = place
        # It has closed the source, or left that to another one. Tasks cleared since then open it again.
        closing = run, f"{group}.close", map_index
        if short(opened.task_id) == "open" and any(
            end.place == closing and opened.number < end.number <= at.number and end.result == "success"
            for end in self.engine.ends
        ):
            return False
        if at.facts["runs"].get(run) not in LIVE_RUNS:
            return False
        bracket = self._bracket(run, group)
        if bracket is None:
            return False
        deletion = frozenset({f"{group}.delete_old_items"}) & bracket.own
        states_of_run = at.facts["states"][run]
        # A cleared task opens the bracket again before it works.
        state_of_open = states_of_run.get((f"{group}.open", map_index))
        if state_of_open not in {"running", *FINISHED}:
            return False
        # It was cleared since then, and marked before it opened again.
        cleared_at = self.engine.cleared_at.get((run, f"{group}.open", map_index), 0)
        if opened.number < cleared_at <= at.number and state_of_open in {"failed", "skipped"}:
            return False
        states = self._states_of(states_of_run, bracket.members | deletion, map_index)
        return any(state not in FINISHED for state in states.values())

    def _bracket(self, run: str, group: str) -> Bracket | None:
        found = [each for each in self.brackets[self.engine.run_dags[run]] if each.group == group]
        return found[0] if found else None

    def _last_accepted(self, source: str) -> Seen | None:
        statuses = [
            seen for seen in self.engine.seen if seen.source == source and seen.status and seen.applied
        ]
        return statuses[-1] if statuses else None

    # --- the invariants ---

    def b1(self) -> Iterator[Violation]:
        """Nothing is live any longer, so each source is IDLE."""
        engine = self.engine
        for source in sorted({seen.source for seen in engine.seen if seen.status in ACTIVE}):
            last = self._last_accepted(source)
            if last is None or last.status == "IDLE" or not last.run:
                continue
            # Airflow keeps no trace of a deleted run and calls nothing, so only the watchdog can close the
            # source.
            if last.run in engine.deleted_runs:
                continue
            # The DAG processor was killed during the failure callback. It counts if `close` could still have
            # run.
            if last.run in engine.lost_callbacks:
                continue
            # None of its tasks could run any longer when a user marked it, and Airflow called nothing.
            if last.run in engine.ended_by_hand:
                continue
            # Coveo rejected the failure callback's request.
            later = engine.seen[engine.seen.index(last) + 1 :]
            if any(each.run == last.run and not each.task_id and each.source == source for each in later):
                continue
            yield Violation("B1", f"source {source} stays {last.status}, which {last.actor} set")

    def b2(self) -> Iterator[Violation]:
        """The state of a run is correct."""
        engine = self.engine
        for run, state in self.runs.items():
            for bracket in self.brackets[engine.run_dags[run]]:
                yield from self._b2_success(run, state, bracket)
                yield from self._b2_blame(run, bracket)

    def _b2_success(self, run: str, state: str, bracket: Bracket) -> Iterator[Violation]:
        engine = self.engine
        # A user who marks a run as a success takes responsibility.
        if state != "success" or engine.marked_runs.get(run) == "success":
            return
        states = self._states_of(self.states[run], bracket.members)
        ignored = {task.task_id for task in engine.dags[bracket.dag_id].tasks if _may_fail(task)}
        bad = sorted(
            engine.name_of(run, *place)
            for place, each in states.items()
            if each in {"failed", "upstream_failed"}
            and place[0] not in ignored
            and (run, *place) not in engine.marked_late
            and not self._is_cleared_without_outcome(run, place, bracket)
        )
        # Nothing judges a task again that is marked after its bracket was judged, or in a skipped bracket.
        judged = set(self._states_of(self.states[run], frozenset({f"{bracket.group}.outcome"})).values())
        if judged <= {"success", "skipped"}:
            by_hand = {engine.name_of(run, *each[1:]) for each in engine.marked if each[0] == run}
            bad = [name for name in bad if name not in by_hand]
        # A user who marks the judging task takes responsibility for the result.
        outcomes = self._states_of(self.states[run], frozenset({f"{bracket.group}.outcome"}))
        if any((run, *place) in engine.marked for place in outcomes):
            return
        # Airflow skips what is pending in a run that is marked as failed, and then counts it as a success.
        if engine.marked_runs.get(run) == "failed" and judged == {"skipped"}:
            bad = []
        if bad:
            yield Violation("B2", f"run {run} is a success, and {', '.join(bad)} failed")
        for source in self._opened_by(run, bracket):
            own = [
                seen
                for seen in engine.seen
                if seen.source == source and seen.status and seen.applied and seen.run == run
            ]
            left_to_another = self._last_accepted(source)
            is_left = left_to_another is own[-1]
            if own[-1].status != "IDLE" and is_left:
                yield Violation("B2", f"run {run} is a success, and Coveo accepted no IDLE for {source}")

    def _is_cleared_without_outcome(self, run: str, place: tuple[str, int], bracket: Bracket) -> bool:
        """
        Return whether a task was the last to be cleared, but not the judging task, which had already ended.

        "Only Failed" does that with a member that was marked failed after a successful `outcome`: Airflow
        does not run `outcome` again, and no other task's failure would fail the run.
        """
        states = self.engine.states_after_clear.get((run, *place))
        if states is None:
            return False
        index = place[1] if bracket.mapped else -1
        judging = self._states_of(states, frozenset({f"{bracket.group}.outcome"}), index)
        return set(judging.values()) <= FINISHED_STATES

    def _b2_blame(self, run: str, bracket: Bracket) -> Iterator[Violation]:
        engine = self.engine
        outcomes = self._states_of(self.states[run], frozenset({f"{bracket.group}.outcome"}))
        for place, state in outcomes.items():
            if state != "failed" or (run, *place) in engine.marked:
                continue
            if any(short(name.partition("[")[0]) == "outcome" for name in self._hurt(run)):
                continue
            index = place[1]
            # It does not judge tasks again that are cleared without it.
            ends = [end for end in engine.ends if end.place == (run, *place)][-1:]
            known = [self.states[run], *(states for end in ends for states in (end.at_start, end.at_end))]
            others = bracket.members | bracket.own - {place[0]}
            around = {state for states in known for state in self._states_of(states, others, index).values()}
            blamed = around & {"failed", "upstream_failed"}
            if not blamed and not self._was_refused(run, "IDLE"):
                yield Violation("B2", f"{engine.name_of(run, *place)} failed, and nothing in its bracket did")

    def _hurt(self, run: str) -> set[str]:
        """Return the tasks of a run that were killed, timed out or lost their result."""
        words = ("kill -9 ", "timeout at")
        return {
            word
            for _, note in self.engine.log
            if any(each in note for each in words)
            for word in note.split()
            if word.startswith(f"{run}.")
        }

    def _was_refused(self, run: str, status: str) -> bool:
        return any(
            seen.run == run and seen.status == status and not 200 <= seen.exchange.status < 300
            for seen in self.engine.seen
        )

    def _opened_by(self, run: str, bracket: Bracket) -> set[str]:
        return {
            seen.source
            for seen in self.engine.seen
            if seen.run == run and seen.status in ACTIVE and seen.applied and self.bracket_of(seen) == bracket
        }

    def b3(self) -> Iterator[Violation]:
        """Only old content is deleted."""
        for number, seen in enumerate(self.engine.seen):
            if seen.exchange.operation != "olderthan" or not seen.applied or not seen.run:
                continue
            before = self.engine.seen[:number]
            own = [each for each in before if each.run == seen.run and each.source == seen.source]
            who = f"{seen.actor} deletes old items of {seen.source}"
            if not any(each.status in ACTIVE and each.applied for each in own):
                yield Violation("B3", f"{who}, which its run never opened")
            pushes = [each for each in own if each.word == "push"]
            if not pushes:
                yield Violation("B3", f"{who}, to which its run pushed nothing")
            else:
                cut_off = int(seen.exchange.query["orderingId"])
                first = pushes[0].exchange.at
                if cut_off > first:
                    late = cut_off - first
                    yield Violation("B3", f"{who} by a cut-off {late} ms after its run's first push")
            yield from self._b3_members(seen, who)

    def _b3_members(self, seen: Seen, who: str) -> Iterator[Violation]:
        bracket = self.bracket_of(seen)
        process = seen.facts.get("process")
        if bracket is None or process is None:
            return
        index = seen.map_index if bracket.mapped else -1

        def bad(states: dict[tuple[str, int], str | None]) -> set[str]:
            return {
                self.engine.name_of(seen.run, *place)
                for place, state in self._states_of(states, bracket.members, index).items()
                if state not in {"success", "removed"}
            }

        # The deletion can't see changes between its check of the members and its request.
        bad_all_along = bad(process.states_at_start) & bad(seen.facts["states"][seen.run])
        if bad_all_along:
            yield Violation("B3", f"{who}, although {', '.join(sorted(bad_all_along))} did not succeed")

    def b4(self) -> Iterator[Violation]:
        """No member works in a closed bracket."""
        last: dict[str, Seen] = {}
        for seen in self.engine.seen:
            if seen.status and seen.applied:
                last[seen.source] = seen
            if seen.word != "push" or not seen.run or seen.task_id not in self._members(seen):
                continue
            # A task that was marked, cleared or timed out continues until its supervisor learns of it by a
            # heartbeat. No DAG can change that.
            if seen.orphan:
                continue
            status = last.get(seen.source)
            if status is not None and status.status == "IDLE" and self._by_same(status, seen):
                yield Violation(
                    "B4", f"{seen.actor} pushes to {seen.source} while it is IDLE by {status.actor}"
                )

    def _members(self, seen: Seen) -> frozenset[str]:
        bracket = self.bracket_of(seen)
        return bracket.members if bracket else frozenset()

    def _by_same(self, one: Seen, other: Seen) -> bool:
        """Return whether two requests belong to one bracket; a callback belongs to all of its run's."""
        if one.run != other.run:
            return False
        return not one.task_id or self.place_of(one) == self.place_of(other)

    def b5(self) -> Iterator[Violation]:
        """No bracket takes a source from another live one."""
        holders: dict[str, list[tuple[tuple[str, str, int], Seen]]] = {}
        for seen in self.engine.seen:
            if not seen.status or not seen.applied:
                continue
            held = holders.setdefault(seen.source, [])
            place = self.place_of(seen)
            others = [
                (holder, opened)
                for holder, opened in held
                if holder[0] != seen.run and self._works(holder, seen, opened)
            ]
            bracket = self.bracket_of(seen)
            # A lingering task does not know later events; this is a separate kind of fault.
            if others and seen.run and not seen.orphan:
                other = others[0][1].actor
                if self._is_given_back(seen, other) or self._could_not_look_again(seen):
                    # Airflow has no compare-and-set, so a status may be wrong for the duration of a request;
                    # and longer if the sender's process ends or is suspended before it can look again.
                    pass
                elif self._was_paused() and self._opens_again(seen, others[0][1].run):
                    # While its DAG was paused, nothing of it worked; when it continues, it opens the source.
                    pass
                elif self._found_nothing_pending(seen, others[0][1].run):
                    # A callback can't query runs. The other one was between two tasks, longer than it waits.
                    pass
                elif seen.status == "IDLE" and seen.dag_id != "watchdog":
                    yield Violation(
                        "B5", f"{seen.actor} closes {seen.source} while {other}'s bracket works on it"
                    )
                elif short(seen.task_id) == "close" and seen.status in ACTIVE:
                    # It restores the status of the other one.
                    pass
                elif seen.status in ACTIVE and bracket is not None and bracket.exclusive:
                    yield Violation(
                        "B5", f"{seen.actor} opens {seen.source} while {other}'s bracket holds it"
                    )
            if seen.status in ACTIVE and place is not None:
                holders[seen.source] = [each for each in held if each[0] != place] + [(place, seen)]
            elif seen.status == "IDLE":
                holders[seen.source] = [each for each in held if each[0][0] != seen.run and seen.run != ""]

    def _was_paused(self) -> bool:
        return any(note.endswith(" paused") for _, note in self.engine.log)

    def _opens_again(self, idle: Seen, run: str) -> bool:
        """Return whether the run's next request to the source is an active status."""
        later = self.engine.seen[self.engine.seen.index(idle) + 1 :]
        changes = (each for each in later if each.exchange.method != "GET")
        following = next((each for each in changes if each.source == idle.source and each.run == run), None)
        return following is None or following.status in {*ACTIVE, "IDLE"}

    def _found_nothing_pending(self, idle: Seen, run: str) -> bool:
        """
        Return whether a callback closed a source while no task of a run was at work, and it opens it again.

        A task can have become due since the callback last looked; none may have started.
        """
        states = set(idle.facts["states"][run].values())
        is_idle = states <= {None, "scheduled", "queued", *FINISHED}
        return not idle.task_id and is_idle and self._opens_again(idle, run)

    def _is_given_back(self, idle: Seen, opener: str) -> bool:
        """
        Return whether the next status is an active one, from the sender or for its bracket.

        Another bracket's may come first, if the sender then sends its own.
        """
        later = self.engine.seen[self.engine.seen.index(idle) + 1 :]
        statuses = [each for each in later if each.source == idle.source and each.status and each.applied]
        own = next((each for each in statuses if each.actor == idle.actor), None)
        return (
            idle.status == "IDLE"
            and bool(statuses)
            and statuses[0].status in ACTIVE
            and (statuses[0].actor == opener or (own is not None and own.status in ACTIVE))
        )

    def _could_not_look_again(self, idle: Seen) -> bool:
        """Return whether the sender's process did not continue before the source's next status."""
        process = idle.facts.get("process")
        if process is None or idle.status != "IDLE":
            return False
        number = self.engine.seen.index(idle)
        later = self.engine.seen[number + 1 :]
        if process.actor.dead or process.orphan_since is not None:
            return all(each.facts.get("process") is not process for each in later)
        following = next(
            (place for place, each in enumerate(later) if each.source == idle.source and each.status), None
        )
        return following is not None and not any(
            number < at <= number + 1 + following for at in process.stepped_at
        )

    def b6(self) -> Iterator[Violation]:
        """Nothing is closed that was not opened."""
        # An `open` killed before its request looks the same as one killed after it.
        asked = {(run, source) for run, source, status in self.engine.intents if status in ACTIVE}
        for seen in self.engine.seen:
            if not seen.status or not seen.run or seen.dag_id == "watchdog":
                continue
            if seen.status == "IDLE" and (seen.run, seen.source) not in asked:
                yield Violation("B6", f"{seen.actor} sends IDLE to {seen.source}, which its run never opened")

    def b7(self) -> Iterator[Violation]:
        """Tasks after a bracket run only if it succeeded."""
        first: dict[int, int] = {}
        for number, seen in enumerate(self.engine.seen):
            process = seen.facts.get("process")
            if process is not None:
                first.setdefault(id(process), number)
            if seen.word != "push" or first.get(id(process)) != number or process is None:
                continue
            for bracket in self.brackets.get(seen.dag_id, []):
                if seen.task_id in bracket.after:
                    yield from self._b7(seen, number, bracket, process)

    def _b7(self, seen: Seen, number: int, bracket: Bracket, process: Any) -> Iterator[Violation]:
        engine = self.engine
        # A user who marked a task in between, or `close` itself, let it run.
        done = f"{bracket.group}.done"
        by_hand = {place[1] for place in seen.facts["marked"] if place[0] == seen.run}
        # A task in a bracket of its own waits for that one's first tasks, and these for this bracket.
        between = next((each.own for each in self.brackets[seen.dag_id] if seen.task_id in each.members), ())
        if by_hand & ({done, seen.task_id, *between} | bracket.own):
            return
        # It was cleared without `done`, which had succeeded: nothing holds it while the bracket opens again.
        since = engine.states_after_clear.get((seen.run, seen.task_id, seen.map_index), {})
        if since.get((done, -1)) == "success":
            return
        who = f"{seen.actor} runs behind {bracket.group}"
        states = self._states_of(process.states_at_start, bracket.members)
        ignored = {task.task_id for task in engine.dags[bracket.dag_id].tasks if _may_fail(task)}
        failed = [
            engine.name_of(seen.run, *place)
            for place, state in states.items()
            if state in {"failed", "upstream_failed"} and place[0] not in ignored
        ]
        # Marked after the bracket had ended.
        failed = [name for name in failed if not self._is_marked(seen.run, name)]
        if failed:
            yield Violation("B7", f"{who}, and {', '.join(failed)} failed")
        own = [
            each
            for each in engine.seen[:number]
            if each.run == seen.run
            and each.status
            and each.applied
            # A callback closes all brackets of its run.
            and (self.bracket_of(each) == bracket or not each.task_id)
        ]
        if not own:
            yield Violation("B7", f"{who}, which never opened")
        elif (
            own[-1].status != "IDLE"
            and not self._was_left_to_another(own[-1], number)
            and not self._was_closed_by_another(own[-1], number, bracket)
        ):
            yield Violation("B7", f"{who}, and Coveo accepted no IDLE of it")

    def _was_left_to_another(self, last: Seen, number: int) -> bool:
        """
        Return whether another run has to close the source.

        It has opened it since, or during this run's `IDLE`: `close` then sets its status again.
        """
        if short(last.task_id) == "close":
            return True
        later = self.engine.seen[self.engine.seen.index(last) : number]
        return any(
            each.source == last.source and each.status in ACTIVE and each.run != last.run for each in later
        )

    def _was_closed_by_another(self, last: Seen, number: int, bracket: Bracket) -> bool:
        """
        Return whether another run closed the source after the last push of the bracket.

        Between two of its tasks, the bracket can seem dead to another run's callback. Its own `close` then
        sends nothing.
        """
        later = self.engine.seen[self.engine.seen.index(last) + 1 : number]
        of_source = [each for each in later if each.source == last.source and each.applied]
        idle = [at for at, each in enumerate(of_source) if each.status == "IDLE"]
        pushes = [
            at
            for at, each in enumerate(of_source)
            if each.run == last.run and each.word == "push" and each.task_id in bracket.members
        ]
        return bool(idle) and idle[-1] > max(pushes, default=-1)

    def _is_marked(self, run: str, name: str) -> bool:
        return any(self.engine.name_of(*place) == name for place in self.engine.marked if place[0] == run)

    def b8(self) -> Iterator[Violation]:
        """The watchdog closes no source that a live bracket owns."""
        opened: dict[str, Seen] = {}
        for seen in self.engine.seen:
            if not seen.status or not seen.applied:
                continue
            if seen.dag_id == "watchdog" and seen.status in ACTIVE:
                # It restores the status of the bracket that opened the source last.
                continue
            if seen.dag_id == "watchdog" and seen.source in opened:
                holder = opened[seen.source]
                if self._is_given_back(seen, holder.actor) or self._could_not_look_again(seen):
                    # As in B5.
                    continue
                place = self.place_of(holder)
                paused = self._was_paused()
                # According to the guide, the watchdog closes the source of a paused DAG.
                if place is not None and self._works(place, seen, holder) and not paused:
                    yield Violation(
                        "B8", f"the watchdog closes {seen.source}, which {holder.actor}'s bracket holds"
                    )
            if seen.status in ACTIVE:
                opened[seen.source] = seen
            else:
                opened.pop(seen.source, None)


def _may_fail(task: Any) -> bool:
    """Return whether Airflow ignores a task's failure for its run: a teardown's."""
    return bool(task.is_teardown and not task.on_failure_fail_dagrun)
