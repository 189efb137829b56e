"""A server's pass over token samples: what is missing is asked for, checked and written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, LogitCacheWriter, MismatchError, Sparse, warn
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.errors import ServerError
from decant.pipeline.language.building import Window, windows_of
from decant.pipeline.language.shift import ShiftGuard
from decant.pipeline.served.connection import Connection
from decant.pipeline.served.dialect import Said
from decant.pipeline.served.heads import Heads, joined
from decant.pipeline.served.pool import in_threads
from decant.pipeline.served.prompt import Prompt
from decant.pipeline.served.sameness import distance, is_another
from decant.pipeline.served.server import Model, Server, connect
from decant.pipeline.served.teacher import ServedTeacher
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.progress import progress

_SURVEYED, _SURVEYED_PLACES = 4, 64
_PROBED_PLACES = 32
_AT_ONCE, _MOST_POSITIONS, _MOST_SECONDS = 64, 1 << 15, 30.0  # of samples that are written together
_NOTHING = 1e-6


class ServedPass:
    """The pass of one process.

    Rows are written some samples at a time. Before each write the server is asked about the probe, the beginning of one
    sample, and must answer as it did at first. So a server that was started anew with another model ends the pass, and
    none of that model's rows are in the file.
    """

    def __init__(
        self,
        teacher: ServedTeacher,
        connection: Connection,
        model: Model,
        samples: TokenSamples,
        encoding: Sparse,
        num_outputs: int,
        tokens_per_batch: int,
        show_progress: bool,
    ) -> None:
        self._teacher, self._connection, self._model = teacher, connection, model
        self._samples, self._encoding = samples, encoding
        self._num_outputs, self._tokens_per_batch = num_outputs, tokens_per_batch
        self._show_progress = show_progress
        self._guard, self._said, self._unnamed = ShiftGuard(), False, 0

    def begin(self) -> None:
        """Finds out how the server is asked, and says once what the tokens that it leaves out cost."""
        self._connect()
        spread = np.unique(np.linspace(0, len(self._samples) - 1, _SURVEYED).astype(int))
        tails = np.concatenate([self._beginning(int(index), _SURVEYED_PLACES).tail for index in spread])
        self._say_cost(tails)

    def require_same(self, cache: LogitCache) -> None:
        """Raises MismatchError where the server says other things than a cache has that is whole."""
        self._connect()
        index = self._telling(np.ones(len(self._samples), np.bool_))
        rows = cache.rows([index], 0)
        self._require(index, rows.ids, rows.log_probs, f"{cache.path}: was made")

    def windows(self, writer: LogitCacheWriter) -> list[Window]:
        """Samples that are handed out together to one of several processes: see `TeacherPass.windows`."""
        return windows_of(self._samples, self._tokens_per_batch, writer)

    def fill(
        self,
        writer: LogitCacheWriter,
        windows: Iterable[Window] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> int:
        """Writes the rows of windows that are missing, by default of all, and returns how many positions they are of.

        advance: is given how many samples are written; by default a bar shows tokens. Raises ServerError, and
        MismatchError where the server has another model than began the file.
        """
        lengths, written, computed = self._samples.lengths, writer.is_written(), 0
        index = self._telling(written if written.any() else ~written)
        if written.any():
            rows = self._encoding.rows(writer.encoded(index))
            self._require(index, rows.ids, rows.log_probs, f"{writer.partial}: was begun")
        probe = self._beginning(index, _PROBED_PLACES)
        taken = self.windows(writer) if windows is None else windows
        missing = (int(one) for window in taken for batch in window for one in batch if not written[one])
        silent = advance is not None or not self._show_progress
        with progress("served teacher", int(lengths.sum()), silent=silent) as show:
            show(int(lengths[written].sum()))
            for some in _gathered(self._answers(missing)):
                self._require(index, probe.ids, probe.log_probs, "this pass began", ServerError)
                self._write(writer, some)
                computed += sum(len(found.ids) for _, found in some)
                show(int(lengths[[one for one, _ in some]].sum()))
                if advance is not None:
                    advance(len(some))
        self._say_at_end()
        return computed

    def ask(self, chosen: Iterable[int]) -> None:
        """Does all that the pass does for some samples, but writes nothing."""
        for _ in self._answers(chosen):
            pass

    def compare(self, cache: LogitCache, chosen: Iterable[int]) -> tuple[int, float]:
        """How many positions of some samples were asked for again, and how far what the server says of one is from
        what a cache holds, in nats on average: of the sample for which that is most.
        """
        self._connect()
        count, largest = 0, 0.0
        for index in chosen:
            rows, now = cache.rows([index], 0), self._beginning(index, None)
            apart = distance(rows.ids, rows.log_probs, now.ids, now.log_probs)
            count, largest = count + len(now.ids), max(largest, apart)
        return count, largest

    def _connect(self) -> None:
        first = next(prompts(self._samples, 0, 1))
        self._server = connect(
            self._teacher, self._connection, self._model, first, self._encoding.head, self._num_outputs
        )

    def _answers(self, missing: Iterable[int]) -> Iterator[tuple[int, Heads]]:
        """(sample, its rows) in the order in which they come."""
        own, over = self._server, list[bool]()
        count = min(self._teacher.concurrency, own.slots or self._teacher.concurrency)
        askers = []
        for _ in range(count):
            connection = Connection(self._teacher, left=lambda: bool(over))
            server = Server(connection, own.model, own.dialect, own.num_outputs, Said(own.said.model))
            askers.append(_Asker(server, self._encoding.head))
        asked = (_Question(index, list(prompts(self._samples, index))) for index in missing)
        answered = in_threads(askers, asked, lambda: over.append(True))
        return ((question.sample, heads) for question, heads in answered)

    def _write(self, writer: LogitCacheWriter, some: list[tuple[int, Heads]]) -> None:
        some = sorted(some, key=lambda pair: pair[0])
        heads = joined([found for _, found in some])
        if self._guard.wants_more:
            for index, found in some:
                tokens, places = self._samples.tokens(index), self._samples.positions(index)
                self._guard.see_likely(found.ids, tokens[places + 1], tokens[places])
            if not self._guard.wants_more:
                self._warn()
        self._unnamed += heads.unnamed
        indices = np.array([index for index, _ in some])
        rows = heads.rows(self._num_outputs)
        following = heads.next_log_prob.clip(np.finfo("f2").min, 0)
        writer.write_encoded(indices, rows, next_log_prob=following)

    def _telling(self, candidates: NDArray[np.bool_]) -> int:
        """The sample that is probed: of these the first with many places."""
        places = np.minimum(self._samples.num_positions, _PROBED_PLACES)
        return int(np.where(candidates, places, -1).argmax())

    def _beginning(self, index: int, most: int | None) -> Heads:
        question = _Question(index, list(prompts(self._samples, index, most)))
        return _ask(self._server, question, self._encoding.head)

    def _require(
        self,
        index: int,
        ids: NDArray[np.integer],
        log_probs: NDArray[np.floating],
        what: str,
        error: type[ServerError] | type[MismatchError] = MismatchError,
    ) -> None:
        """Raises an error where the server says other things than it said of the beginning of a sample before."""
        now = self._beginning(index, _PROBED_PLACES)
        count = len(now.ids)
        apart = distance(ids[:count], log_probs[:count], now.ids, now.log_probs)
        if is_another(apart):
            raise error(
                f"{self._server.connection.url}: gives other probabilities than when {what}: those of the likeliest "
                f"tokens of sample {index:,} are {apart:.2f} nats apart on average; it has another model, or other "
                "weights, under the same name"
            )

    def _say_cost(self, tails: NDArray[np.float64]) -> None:
        url, kept = self._server.connection.url, self._encoding.head
        said = (
            f"{url}: the {kept} likeliest tokens of a place leave {tails.mean():.1%} of the probability to all others "
            f"together, and {np.quantile(tails, 0.9):.1%} or more at one place of ten ({len(tails):,} places looked "
            "at); they serve T = 1 alone"
        ).replace("%", " %")
        say_once(said, f"{url} leaves to others")
        if tails.max() <= _NOTHING and kept < self._num_outputs / 2:
            warn(
                f"{url}: the probabilities of each place sum to 1, so nothing is left out: where they were scaled so, "
                "the teacher's softmax is not known, and what students learn is biased"
            )

    def _warn(self) -> None:
        doubt = self._guard.doubt()
        if doubt is not None and not self._said:
            self._said = True
            warn(f"{self._server.connection.url}: {doubt}")

    def _say_at_end(self) -> None:
        self._warn()  # of few positions there was no word yet
        if self._unnamed:
            say_once(
                f"{self._server.connection.url}: at {self._unnamed:,} places likely tokens are named by a text that "
                "is of several tokens; their probability is among that of all others"
            )


class _Question(NamedTuple):
    """The prompts of a sample."""

    sample: int
    prompts: list[Prompt]


class _Asker:
    """Asks for the rows of samples with a connection of its own."""

    def __init__(self, server: Server, kept: int) -> None:
        self._server, self._kept = server, kept

    def __call__(self, question: _Question) -> Heads:
        return _ask(self._server, question, self._kept)

    def close(self) -> None:
        self._server.connection.close()


def _ask(server: Server, question: _Question, kept: int) -> Heads:
    """The rows of a sample, or of some of its places. Raises ServerError."""
    subject = f"sample {question.sample:,}"
    return joined([server.ask(prompt, kept, subject) for prompt in question.prompts])


def prompts(samples: TokenSamples, index: int, most: int | None = None) -> Iterator[Prompt]:
    """The prompts of a sample, or of its first `most` places. Each part that sees only itself is a prompt of its own,
    which ends with the last token that is predicted.
    """
    tokens, places = samples.tokens(index), samples.positions(index)[:most]
    ends = np.cumsum(samples.groups(index))
    for begin, end in itertools.pairwise([0, *ends.tolist()]):
        within = places[(begin <= places) & (places < end)] - begin
        if len(within):
            yield Prompt(tokens[begin : begin + within[-1] + 2], within, samples.corpus.tokenizer)


def _gathered(answers: Iterator[tuple[int, Heads]]) -> Iterator[list[tuple[int, Heads]]]:
    """Some that are written together: many, or those of half a minute."""
    some, positions, since = list[tuple[int, Heads]](), 0, time.monotonic()
    for answer in answers:
        some.append(answer)
        positions += len(answer[1].ids)
        if len(some) >= _AT_ONCE or positions >= _MOST_POSITIONS or time.monotonic() - since > _MOST_SECONDS:
            yield some
            some, positions, since = [], 0, time.monotonic()
    if some:
        yield some
