"""The profiler: rows pass by once, in blocks, and what is known of the dataset at the end fits in bounded memory.

    profile_path(Path("data/"), options=Options(sample=10_000), base_model=folder)

Counted over all rows: schema, nulls, lengths, exact repeats, value balance, roles, PII hints. Measured on a sample
whose size is told: near duplicates, tokens, languages, formats, answer positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.formats import Format, detect_format
from posttrain_crew.tools.data.measuring import TokenCounter
from posttrain_crew.tools.data.profile.blocks import Block, Pick
from posttrain_crew.tools.data.profile.chat import ChatCounter, chat_columns
from posttrain_crew.tools.data.profile.columns import Columns
from posttrain_crew.tools.data.profile.content import content_leaves, prompt_leaves
from posttrain_crew.tools.data.profile.hashing import RepeatCounter, digests, normal_texts
from posttrain_crew.tools.data.profile.json_rows import Schema, json_blocks, row_blocks
from posttrain_crew.tools.data.profile.model import Profile
from posttrain_crew.tools.data.profile.near import NearSketch
from posttrain_crew.tools.data.profile.parquet_rows import parquet_blocks
from posttrain_crew.tools.data.profile.pii import PiiCounter
from posttrain_crew.tools.data.profile.sampled import answer_positions, formats, languages, shown, tokens
from posttrain_crew.tools.data.profile.sampling import RowSample
from posttrain_crew.tools.data.profile.warn import warnings_of
from posttrain_crew.tools.data.reader import Dataset, RawRow, open_dataset
from posttrain_crew.tools.data.tables import TABLE_SUFFIXES, table_rows

__all__ = ["Options", "Profiler", "Subject", "blocks_of_rows", "profile_dataset", "profile_path"]

DETECTION_ROWS = 200


@dataclass(frozen=True)
class Options:
    """How much is sampled."""

    sample: int = 10_000
    """Rows of the uniform sample, and most rows compared for near duplicates."""
    seed: int = 0
    may_show: Callable[[RawRow], bool] | None = None
    """Which rows may be among the samples; None is all. (An agent must not see items of the benchmark.)"""


@dataclass(frozen=True)
class Subject:
    """What is profiled, as far as it is known without reading rows."""

    name: str
    place: str
    files: int
    bytes: int
    licence: str | None
    problem: str | None = None


class Profiler:
    """Takes blocks, makes the profile.

    Args:
        base_model: folder whose tokenizer counts; None guesses four characters a token.

    Raises:
        ModelError: its tokenizer cannot be read.
    """

    def __init__(self, options: Options | None = None, base_model: Path | None = None) -> None:
        self._options = options or Options()
        self._tokens = TokenCounter(base_model)
        self._sample = RowSample(self._options.sample, self._options.seed)
        self._columns = Columns()
        self._rows = RepeatCounter()
        self._prompts = RepeatCounter()
        self._near = NearSketch(self._options.sample, self._options.seed)
        self._pii = PiiCounter()
        self._chats: dict[str, ChatCounter] = {}
        self._format: Format | None = None
        self.rows = self._unreadable = self._bad_text = self._left_out = 0

    @property
    def pick(self) -> Pick:
        """What a reader of blocks asks which rows it should hand over as Python values."""
        return self._sample.pick

    def hide_samples(self) -> None:
        """Show no row in the result."""
        self._options = replace(self._options, may_show=lambda _: False)

    def add(self, block: Block) -> None:
        """Take the next rows."""
        self.rows += block.rows
        self._unreadable += block.unreadable
        self._bad_text += block.bad_text
        self._left_out += block.left_out
        self._sample.offer(block.picked)
        if self._format is None and block.picked:
            self._format = detect_format(row for _, row in block.picked[:DETECTION_ROWS])
        self._columns.add(block)
        content = content_leaves(block)
        texts = normal_texts(content, block.rows)
        self._rows.add(digests(texts))
        self._near.add(texts)
        asked = prompt_leaves(block, self._format or "unknown")
        if asked:
            self._prompts.add(digests(normal_texts(asked, block.rows)))
        for leaf in block.leaves:
            if leaf.kind == "text":
                self._pii.add(leaf)
        for column, paths in chat_columns(block).items():
            self._chats.setdefault(column, ChatCounter(column)).add(block, paths)

    def result(self, subject: Subject) -> Profile:
        """The profile of all that was added."""
        rows = self._sample.rows()
        kind, votes = formats(rows)
        shares, asked = languages(rows)
        made = Profile(
            name=subject.name[:200],
            place=subject.place,
            source="files",
            files=subject.files,
            bytes=subject.bytes,
            rows=self.rows + self._unreadable,
            rows_read=self.rows,
            unreadable=self._unreadable,
            licence=subject.licence,
            format=kind,
            formats=votes,
            columns=self._columns.result(),
            columns_left_out=self._columns.left_out,
            sample=len(rows),
            seed=self._options.seed,
            repeated_rows=self._rows.result(),
            repeated_prompts=self._prompts.result(),
            near_duplicates=self._near.result(),
            tokens=tokens(rows, self._tokens),
            languages=shares,
            languages_sample=asked,
            balance=self._columns.balance(),
            answer_positions=answer_positions(rows, kind),
            chat=[chat.result() for chat in self._chats.values()],
            pii=self._pii.result(),
            samples=shown(rows, self._options.may_show),
            warnings=[],
        )
        notes = [subject.problem] if subject.problem else []
        if self._bad_text:
            notes.append(f"{self._bad_text} texts are no valid UTF-8; the bytes that are not were replaced")
        if self._left_out:
            notes.append(
                f"{self._left_out} values lie at places, depths or list ends beyond the bounds and were not profiled"
            )
        return made.model_copy(update={"warnings": [*notes, *warnings_of(made)]})


def profile_dataset(dataset: Dataset, options: Options | None = None, base_model: Path | None = None) -> Profile:
    """Profile a dataset on disk.

    Raises:
        DatasetError: no data files, one is damaged, or would inflate without bound. ModelError: the base model.
    """
    options = options or Options()
    if not dataset.files:
        raise DatasetError(dataset.card.problem or f"{dataset.folder} holds no data files.")
    profiler = Profiler(options, base_model)
    for block in _blocks(dataset, profiler.pick):
        profiler.add(block)
    return profiler.result(
        Subject(
            name=dataset.name,
            place=str(dataset.files[0] if len(dataset.files) == 1 else dataset.folder),
            files=len(dataset.files),
            bytes=sum(path.stat().st_size for path in dataset.files),
            licence=dataset.card.licence,
            problem=dataset.card.problem,
        )
    )


def profile_path(path: Path, options: Options | None = None, base_model: Path | None = None) -> Profile:
    """Profile a folder with data files, or one such file. Raises as `profile_dataset`."""
    return profile_dataset(open_dataset(path), options, base_model)


def blocks_of_rows(rows: Iterator[RawRow | None], pick: Pick) -> Iterator[Block]:
    """Rows from elsewhere, such as a stream, as blocks."""
    return row_blocks(rows, pick, Schema())


def _blocks(dataset: Dataset, pick: Pick) -> Iterator[Block]:
    schema = Schema()
    for path in dataset.files:
        if path.suffix == ".parquet":
            yield from parquet_blocks(path, pick)
        elif path.name.endswith(TABLE_SUFFIXES):
            yield from row_blocks(table_rows(path), pick, schema)
        else:
            yield from json_blocks(path, pick, schema)
