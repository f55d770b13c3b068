"""Searches for widths that can shrink together: if a small model is not the planned one, the cause stays whole.

The number of attempts grows with the number of kinds of widths that must stay, and not with the number of widths:
widths of layers whose names differ only in a number are tried together.
"""

import re
from collections.abc import Iterator, Sequence

from ramda_jax.compaction.search.attempt import Attempt, Attempts
from ramda_jax.compaction.search.guesses import Guess, Source
from ramda_jax.compaction.tracing.widths import Width

#: The largest number of guesses for a kind of widths.
_MOST_GUESSES = 40


class Search:
    """Makes attempts on a model until one succeeds."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempt = attempts
        self._refused: dict[str, str] = {}
        self._guess: dict[tuple[str, str], Source] = {}
        self._cleared: set[str] = set()

    def run(self, strict: bool = False, allow_empty: bool = False) -> tuple[Attempt, dict[str, str]]:
        """The first attempt that succeeds; with `strict` the first attempt, whether it succeeds or not.

        With `allow_empty` dead widths lose all of their indices where this is possible.

        Returns:
            (attempt, reasons). `reasons` says, by name, why a dead width that may be empty keeps an index.
        """
        dead = self._attempt.dead() if allow_empty else []
        if not dead:
            return self._run(strict), {}
        attempt = self._attempt({}, None, dead)
        if not attempt.mismatches or strict:
            return attempt, {}
        for guess in self._guesses_for_all(attempt):
            guessed = self._attempt({}, guess, dead)
            if not guessed.mismatches:
                return self._without_needless(guessed), {}
        return self._emptied(self._run(strict), dead)

    def _emptied(self, attempt, dead):
        """The attempt with as many empty dead widths as possible, tried together first, then one after the other."""
        reasons = {}
        whole = self._empty_too(attempt, dead)
        if not whole.mismatches:
            return self._without_needless(whole), reasons
        for name in dead if len(dead) > 1 else ():
            one = self._empty_too(attempt, [name])
            if one.mismatches:
                reasons[name] = str(one.mismatches[0])
            else:
                attempt = one
        reasons = reasons or {dead[0]: str(whole.mismatches[0])}
        # `refused` has the reasons for the widths that stay whole.
        return self._without_needless(attempt), {n: why for n, why in reasons.items() if n not in attempt.refused}

    def _empty_too(self, attempt, names):
        """The attempt with these widths empty as well, under the first guess with which it succeeds."""
        refused = {name: reason for name, reason in attempt.refused.items() if name not in names}
        empty = attempt.empty | set(names)
        found = self._attempt(refused, attempt.guess, empty)
        for guess in self._guesses_for_all(found) if found.mismatches else ():
            guessed = self._attempt(refused, {**guess, **attempt.guess}, empty)
            if not guessed.mismatches:
                return guessed
        return found

    def _run(self, strict):
        attempt = self._attempt({})
        if not attempt.mismatches or strict:
            return attempt
        for guess in self._guesses_for_all(attempt):
            guessed = self._attempt({}, guess)
            if not guessed.mismatches:
                return self._without_needless(guessed)
        names = attempt.shrinking
        while attempt.mismatches:
            nearest = {name for m in attempt.mismatches for name in self._attempt.culprits(attempt, m)}
            before = len(self._refused), dict(self._guess)
            for suspects in (nearest, set(names)):
                for kind in self._kinds([n for n in names if n in suspects and not self._is_tried(n)]):
                    self._try(kind, names)
                if (len(self._refused), self._guess) != before:
                    break
            else:
                # Each kind can be deleted alone, but not all together.
                return self._without_needless(self._one_kind_after_the_other(names))
            attempt = self._attempt(self._refused, self._guess)
        return self._without_needless(attempt)

    def _is_tried(self, name):
        return name in self._refused or name in self._cleared

    def _guesses_for_all(self, attempt) -> Iterator[Guess]:
        guesses = self._attempt.guesses(attempt)
        options = {key: sources[0] for key, sources in guesses.options().items()}
        certain = {key: source for key, source in options.items() if key in guesses.certain()}
        if certain:
            yield certain
        if options and len(options) > len(certain):
            yield options

    def _kinds(self, names: Sequence[str]) -> list[list[str]]:
        """The names of widths, grouped by kind, in order."""
        kinds = {}
        widths = {width.name: width for width in self._attempt.dims.widths}
        for name in names:
            kinds.setdefault(_kind(widths[name]), []).append(name)
        return list(kinds.values())

    def _alone(self, names, every, guess=None):
        """An attempt in which only `names` become smaller, of all widths that could."""
        others = {name: "not on trial" for name in every if name not in names}
        return self._attempt(others | self._refused, guess)

    def _try(self, names, every):
        """Finds which widths of a kind can be deleted, and which guess this needs."""
        rest = list(names)
        while rest:
            attempt = self._alone(rest, every)
            if attempt.mismatches and not attempt.plan.changes_nothing:
                found = self._guessed(attempt, rest, every)
                if found is not None:
                    self._guess |= found
                    break
                blamed = self._blamed(attempt, rest) or self._blamed_by_halves(attempt, rest, every)
                self._refused |= blamed
                rest = [name for name in rest if name not in blamed]
                continue
            break
        self._cleared.update(rest)

    def _guessed(self, attempt, names, every):
        """A guess under which an attempt with these widths alone succeeds, or None."""
        guesses = self._attempt.guesses(attempt)
        options = guesses.options()
        certain = {key: options[key][0] for key in options if key in guesses.certain()}
        every_first = {key: sources[0] for key, sources in options.items()}
        singles = [{key: source} for key, sources in options.items() for source in sources]
        but_one = [{k: s for k, s in every_first.items() if k != key} for key in options]
        tried = []
        for guess in [dict(self._guess), certain, every_first, *singles, *but_one][:_MOST_GUESSES]:
            if guess and guess not in tried:
                tried.append(guess)
                if not self._alone(names, every, guess).mismatches:
                    return self._fewest(names, every, guess)
        return None

    def _fewest(self, names, every, guess):
        for key in list(guess):
            fewer = {k: source for k, source in guess.items() if k != key}
            if key not in self._guess and fewer and not self._alone(names, every, fewer).mismatches:
                guess = fewer
        return guess

    def _blamed(self, attempt, names):
        """A dict from the names at which the traces differ to the reason of each."""
        blamed = {}
        for mismatch in attempt.mismatches:
            for name in self._attempt.culprits(attempt, mismatch):
                if name in names:
                    blamed.setdefault(name, str(mismatch))
        return blamed

    def _blamed_by_halves(self, attempt, names, every):
        """The same if the small model cannot be traced and so does not show where it differs."""
        if len(names) == 1:
            return {names[0]: str(attempt.mismatches[0])}
        ends = {name: self._alone([name], every) for name in (names[0], names[-1])}
        middle = names[1:-1]
        wrong = {name: str(alone.mismatches[0]) for name, alone in ends.items() if alone.mismatches}
        if len(wrong) == 2 and middle and self._alone(middle, every).mismatches:
            # All others of the kind are like the first.
            return {name: wrong.get(name, wrong[names[0]]) for name in names}
        if wrong:
            return wrong
        # Neither end alone fails, so look for the half that cannot be deleted.
        half = len(names) // 2
        for part in (names[:half], names[half:]):
            alone = self._alone(part, every)
            if alone.mismatches:
                return self._blamed_by_halves(alone, part, every)
        return {names[-1]: str(attempt.mismatches[0])}

    def _one_kind_after_the_other(self, names):
        """The kinds that can be deleted together; earlier kinds take precedence."""
        allowed = []
        for kind in self._kinds([name for name in names if name not in self._refused]):
            attempt = self._alone([*allowed, *kind], names, self._guess)
            if attempt.mismatches:
                self._refused |= {name: f"{attempt.mismatches[0]}, together with others" for name in kind}
            else:
                allowed += kind
        return self._attempt(self._refused, self._guess)

    def _without_needless(self, attempt):
        """The same attempt, without the guesses that it does not need."""
        for key in list(attempt.guess):
            fewer = {k: s for k, s in attempt.guess.items() if k != key}
            fewer = self._attempt(attempt.refused, fewer, attempt.empty)
            if not fewer.mismatches:
                attempt = fewer
        return attempt


def _kind(width: Width):
    """A key that is equal for widths of layers whose names differ in a number only."""
    readers = set(map(str, width.readers))
    members = sorted((re.sub(r"\d+(?=/)", "#", str(member)), str(member) in readers) for member in width.members)
    return width.size, tuple(dict.fromkeys(members))
