"""Another threshold for a finished run, from the hold-out scores that are kept with it; no network is built."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from jaxad.errors import CheckpointError, ConfigError, DamagedError
from jaxad.inference.calibrate import choose_limits, warned
from jaxad.inference.card import CARD, run_of, write_card
from jaxad.inference.holdout_scores import HoldoutScores, joined
from jaxad.inference.steps import FOLDER, Step, check_named, newest, numbered, open_step
from jaxad.inference.threshold import POOLED, Threshold
from jaxad.io.untrusted import told


class Decided(NamedTuple):
    """The end of a run: its newest whole step, the rule in force, the scores it was chosen from, and notes for users.

    Scores are None where there was no hold-out, and in runs of older versions.
    """

    step: Step
    threshold: Threshold | None
    holdout: HoldoutScores | None
    notes: tuple[str, ...] = ()


def read_decided(checkpoint: Path | str) -> Decided:
    """What is decided in a run.

    Args:
        checkpoint: a workdir, or one step's folder.

    Raises:
        DamagedError: no step is whole, or what the newest says of its end is damaged.
        CheckpointError: nothing there, or the run is not at its end.
    """

    def read(step: Step) -> Step:
        step.check("meta")
        return step

    step, notes = newest(checkpoint, read)
    end, scores = step.ending(), step.holdout()
    if not end:
        raise CheckpointError(f"{step.folder}: the run is not at its end; run the same `jaxad fit` again to go on")
    try:
        threshold = None if end["threshold"] is None else Threshold.from_json(end["threshold"])
        holdout = None if scores is None else HoldoutScores.from_json(scores)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{step.folder}: its threshold is none of jaxad's: {error!r}") from error
    return Decided(step, threshold, holdout, notes)


def rechoose(
    checkpoint: Path | str,
    *,
    false_alarm: float | None = None,
    value: float | None = None,
    holdout: HoldoutScores | None = None,
    categories: Sequence[str] | None = None,
    warn: Callable[[Sequence[str]], object] = lambda texts: None,
) -> Threshold:
    """Chooses the threshold of a run anew and keeps it with the run; no array of the run is read or changed.

    The rule that was in force stays until the new one is written as a whole.

    Args:
        checkpoint: a workdir, or one step's folder.
        false_alarm: share of normal images allowed above the limits; None for that of the rule in force.
        value: the image limit; None for the quantile.
        holdout: scores to choose from and to keep in place of those of the run; None for those of the run.
        categories: whose limits to choose; None for all, and the pooled ones. All others stay as they are.
        warn: told of a model card that cannot be written.

    Raises:
        ConfigError: an impossible rate or value, or categories that the rule in force does not have.
        DamagedError, CheckpointError: as `read_decided`; or there are no scores to choose from.
    """
    decided = read_decided(checkpoint)
    step, scores = decided.step, holdout or decided.holdout
    if scores is None:
        raise CheckpointError(f"{step.folder}: {no_scores(checkpoint, decided)}")
    asked = asked_rate(step)
    if false_alarm is None:
        false_alarm = asked if decided.threshold is None else decided.threshold.false_alarm
    if categories is not None:
        check_categories(categories, decided.threshold)
        if holdout is not None and decided.holdout is not None:
            # Those of the other categories are what their limits come from.
            others = decided.holdout.select(name not in categories for name in decided.holdout.categories)
            own = holdout.select(name in categories for name in holdout.categories)
            scores = joined([part for part in (others, own) if len(part)], holdout.source)
    threshold = choose_limits(scores, false_alarm=0.01 if false_alarm is None else false_alarm, value=value)
    if categories is not None:
        threshold = _only(categories, threshold, decided.threshold)
    step.end(threshold.to_json(), scores.to_json(), asked)
    if (run := run_of(step.folder)) is not None:
        renew_card(run, warn)
    return threshold


def renew_card(workdir: Path, warn: Callable[[Sequence[str]], object]) -> None:
    """Writes the model card of a run, which tells of its newest step at its end, whichever was decided upon.

    Steps that were saved since, on the way to another end, have no card yet. What keeps it from being written costs
    nothing of what is done: nothing of a run depends on its card.

    Args:
        workdir: of the run.
        warn: told why it cannot be written.
    """
    try:
        if (last := _last_end(workdir)) is not None:
            write_card(read_decided(last), workdir)
    except (OSError, CheckpointError) as error:
        warn([f"{workdir / CARD}: the model card cannot be written ({told(error)}); the run is whole without it"])


def _last_end(workdir: Path) -> Path | None:
    """The folder of the newest whole step at its end, None without one."""
    for folder in numbered(workdir / FOLDER):
        with suppress(DamagedError):
            step = open_step(folder)
            check_named(step)
            step.check("meta")
            if step.ending():
                return folder
    return None


def chosen_like(rule: Threshold, holdout: HoldoutScores) -> Threshold:
    """Limits that other scores give, chosen as those of a rule were.

    A category's limit that was set by hand keeps its value, one with a rate of its own keeps that rate; all others are
    at the rate of the rule. Categories that the rule does not have are chosen as its pooled limits.

    Args:
        rule: in force.
        holdout: the scores, of all its categories.
    """
    chosen = choose_limits(holdout, false_alarm=rule.false_alarm)
    like = {name: rule.of(name) for name in chosen.limits}
    how = {n: (limit.asked or rule.false_alarm, limit.image if limit.by_hand else None) for n, limit in like.items()}
    # Few rates and values are set, for many categories: each is chosen for all at once.
    found = {one: choose_limits(holdout, false_alarm=one[0], value=one[1]).limits for one in set(how.values())}
    limits = {name: replace(found[one][name], asked=like[name].asked) for name, one in how.items()}
    return warned(replace(chosen, limits=limits))


def asked_rate(step: Step) -> float | None:
    """The false-alarm rate that `fit` was asked for; None where it is not recorded."""
    return step.ending().get("false_alarm", step.meta.get("false_alarm"))


def check_categories(categories: Sequence[str], rule: Threshold | None) -> None:
    """Raises ConfigError for categories that a rule has no limits of."""
    known = [name for name in (rule.limits if rule else {}) if name != POOLED]
    if strangers := [name for name in categories if name not in known]:
        raise ConfigError(
            f"categories = {' '.join(strangers)}: without limits of their own; there are those of "
            f"{', '.join(known) or 'none'}"
        )


def _only(categories: Sequence[str], new: Threshold, old: Threshold | None) -> Threshold:
    """The old rule with the new limits of some categories."""
    if old is None or (missing := [name for name in categories if name not in new.limits]):
        raise ConfigError(f"categories = {' '.join(missing if old else categories)}: no image of theirs was scored")
    kept = {name: replace(limit, asked=limit.asked or old.false_alarm) for name, limit in old.limits.items()}
    changed = {name: replace(new.limits[name], asked=new.false_alarm) for name in categories}
    return warned(replace(old, limits=kept | changed, images=new.images))


def no_scores(checkpoint: Path | str, decided: Decided) -> str:
    """Why a run has no hold-out scores, and what to run."""
    source = str(decided.step.meta.get("data", {}).get("source") or "SRC").removesuffix("/train")
    why = "it had no hold-out" if decided.threshold is None else "an older version did not keep its hold-out scores"
    words = f"--checkpoint {shlex.quote(str(checkpoint))} --data {shlex.quote(source)}"
    return f"{why}; run `jaxad threshold {words}` once"
