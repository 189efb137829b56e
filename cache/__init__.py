"""A soft-label cache: one HDF5 file with a teacher's logits for every sample and view, safe to share.

errors.py      what can be wrong with a cache
manifest.py    what a cache holds and where it came from; its key; identities.py, in what two differ
positions.py   samples of several positions each; lengths.py, which rows are whose
encodings/     how the logits of a row are stored
format/        the file: HDF5 header, tables, blocks and checksums
io/            atomic writes, locks, unfinished files
writer.py      rows in, and validation.py, what may be stored; beginning.py and partial_rows.py, the unfinished file
reader.py      rows out (row_numbers.py, encoded_rows.py); opening.py, the file, found and mapped; placement.py, where
               it is read from; soundness.py, whether blocks are as they were written; verification.py, whether what
               is in them can be
source.py      what soft labels are read from; ensemble.py, several teachers as one
labels.py      what a label is; inputs.py, the checksums of inputs
alignment/     which row a sample of a dataset has, and whether it is the sample that the teacher saw
dataset.py     soft labels for PyTorch, by index; stream.py, in the order of a stream whose samples carry their keys;
               sequences.py, for sequences whose positions have rows; shared_epoch.py, what each of these shares with
               its workers. These four import torch; made_together.py, several batches in one call; pickled.py, of
               another version
exchange/      logits and rows of other programs: imported, exported
statistics/    what the logits are like, and whether they can be a teacher's
convert.py     a smaller cache of one, one of several (copied_views.py); parts.py, one from the unfinished files of
               several machines
remote/        caches that lie elsewhere: fetched, published, read while they are fetched
store/         a directory of caches that experiments share, here or elsewhere
unfinished.py  how far a cache is that is being written

Other packages import from here, and from `cache.io` what they write with themselves. `SoftLabelDataset` and `attach`
need torch and are imported when they are first used; everything else needs NumPy and h5py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ == "cache":  # found by its folder's name, inside the repository
    from decant.folder_names import use_import_package

    use_import_package("cache")

if TYPE_CHECKING:
    from decant.cache.alignment.drawn_views import DrawnViews
    from decant.cache.alignment.items import ItemKeys, is_pair, name_sample, pick, read_item, recognise
    from decant.cache.alignment.keys import Key, Keys, split_keys
    from decant.cache.alignment.map_style import require_map_style
    from decant.cache.alignment.subsets import holder_of_views
    from decant.cache.convert import convert_cache, merge_caches
    from decant.cache.copied_views import take_over_views
    from decant.cache.dataset import SoftLabelDataset
    from decant.cache.encodings import Dense, Encoding, Head, Hidden, Quantised, Sparse, SparseRows
    from decant.cache.encodings.draws import uniforms
    from decant.cache.encodings.encoding import require_finite
    from decant.cache.encodings.ids import pack_ids
    from decant.cache.encodings.survey import SparseSurvey, SurveyedSize
    from decant.cache.encodings.temperatures import bounds_in_words, interpolated, log_tail_bounds
    from decant.cache.ensemble import Ensemble
    from decant.cache.errors import (
        CacheError,
        CacheWarning,
        CorruptError,
        Difference,
        FormatError,
        IncompleteError,
        MismatchError,
        NewerFormatError,
        OfflineError,
        RemoteError,
        RewrittenError,
        StorageError,
        ValueRefusedError,
        warn,
    )
    from decant.cache.exchange.distillkit import read_distillkit
    from decant.cache.exchange.imported_rows import import_rows
    from decant.cache.exchange.logits import export_logits, import_logits
    from decant.cache.exchange.row_files import export_rows
    from decant.cache.exchange.vllm_answers import read_vllm, vllm_rows
    from decant.cache.format.tables import expected_size, rows_per_block
    from decant.cache.identities import differences, require_equal
    from decant.cache.inputs import (
        CheckInputs,
        as_values,
        each_input,
        input_checksums,
        input_crc32,
        one_input,
    )
    from decant.cache.labels import NotComparableError, class_ids, targets
    from decant.cache.made_together import in_turn, split_batch, take_run
    from decant.cache.manifest import Manifest, class_list
    from decant.cache.parts import merge_parts
    from decant.cache.pickled import OfOneVersion
    from decant.cache.positions import Positions
    from decant.cache.reader import LogitCache
    from decant.cache.remote.progress import show_progress
    from decant.cache.remote.publishing import Published, push_cache
    from decant.cache.sequences import SequenceBatch, SequenceDataset
    from decant.cache.shared_epoch import SharedEpoch
    from decant.cache.soundness import Verify
    from decant.cache.source import LogitSource, row_chunks
    from decant.cache.statistics.class_order import doubt_class_order
    from decant.cache.statistics.outputs import (
        RegressionSummary,
        SigmoidSummary,
        Summary,
        calibration_error,
        regression_errors,
        softmax,
        summarize,
    )
    from decant.cache.statistics.plausibility import Accuracy, accuracy_in, accuracy_of, are_probabilities
    from decant.cache.statistics.position_profile import (
        PositionProfile,
        ShownRow,
        profile_positions,
        sample_rows,
    )
    from decant.cache.statistics.positions import PositionSummary
    from decant.cache.statistics.sigmoids import SigmoidScores, average_precision, sigmoid_scores
    from decant.cache.store.gc import Leftover, leftovers, remove_leftover
    from decant.cache.store.local import Store
    from decant.cache.store.remote import Listed
    from decant.cache.stream import SoftLabelStream, attach
    from decant.cache.unfinished import Unfinished, find_unfinished, has_writers
    from decant.cache.writer import LogitCacheWriter

__all__ = [
    "Accuracy",
    "CacheError",
    "CacheWarning",
    "CheckInputs",
    "CorruptError",
    "Dense",
    "Difference",
    "DrawnViews",
    "Encoding",
    "Ensemble",
    "FormatError",
    "Head",
    "Hidden",
    "IncompleteError",
    "ItemKeys",
    "Key",
    "Keys",
    "Leftover",
    "Listed",
    "LogitCache",
    "LogitCacheWriter",
    "LogitSource",
    "Manifest",
    "MismatchError",
    "NewerFormatError",
    "NotComparableError",
    "OfOneVersion",
    "OfflineError",
    "PositionProfile",
    "PositionSummary",
    "Positions",
    "Published",
    "Quantised",
    "RegressionSummary",
    "RemoteError",
    "RewrittenError",
    "SequenceBatch",
    "SequenceDataset",
    "SharedEpoch",
    "ShownRow",
    "SigmoidScores",
    "SigmoidSummary",
    "SoftLabelDataset",
    "SoftLabelStream",
    "Sparse",
    "SparseRows",
    "SparseSurvey",
    "StorageError",
    "Store",
    "Summary",
    "SurveyedSize",
    "Unfinished",
    "ValueRefusedError",
    "Verify",
    "accuracy_in",
    "accuracy_of",
    "are_probabilities",
    "as_values",
    "attach",
    "average_precision",
    "bounds_in_words",
    "calibration_error",
    "class_ids",
    "class_list",
    "convert_cache",
    "differences",
    "doubt_class_order",
    "each_input",
    "expected_size",
    "export_logits",
    "export_rows",
    "find_unfinished",
    "has_writers",
    "holder_of_views",
    "import_logits",
    "import_rows",
    "in_turn",
    "input_checksums",
    "input_crc32",
    "interpolated",
    "is_pair",
    "leftovers",
    "log_tail_bounds",
    "merge_caches",
    "merge_parts",
    "name_sample",
    "one_input",
    "pack_ids",
    "pick",
    "profile_positions",
    "push_cache",
    "read_distillkit",
    "read_item",
    "read_vllm",
    "recognise",
    "regression_errors",
    "remove_leftover",
    "require_equal",
    "require_finite",
    "require_map_style",
    "row_chunks",
    "rows_per_block",
    "sample_rows",
    "show_progress",
    "sigmoid_scores",
    "softmax",
    "split_batch",
    "split_keys",
    "summarize",
    "take_over_views",
    "take_run",
    "targets",
    "uniforms",
    "vllm_rows",
    "warn",
]

_NAMES = {
    "alignment.drawn_views": ("DrawnViews",),
    "alignment.items": ("ItemKeys", "is_pair", "name_sample", "pick", "read_item", "recognise"),
    "alignment.keys": ("Key", "Keys", "split_keys"),
    "alignment.map_style": ("require_map_style",),
    "alignment.subsets": ("holder_of_views",),
    "convert": ("convert_cache", "merge_caches"),
    "copied_views": ("take_over_views",),
    "dataset": ("SoftLabelDataset",),
    "encodings": ("Dense", "Encoding", "Head", "Hidden", "Quantised", "Sparse", "SparseRows"),
    "encodings.draws": ("uniforms",),
    "encodings.encoding": ("require_finite",),
    "encodings.ids": ("pack_ids",),
    "encodings.survey": ("SparseSurvey", "SurveyedSize"),
    "encodings.temperatures": ("bounds_in_words", "interpolated", "log_tail_bounds"),
    "ensemble": ("Ensemble",),
    "errors": (
        "CacheError",
        "CacheWarning",
        "CorruptError",
        "Difference",
        "FormatError",
        "IncompleteError",
        "MismatchError",
        "NewerFormatError",
        "OfflineError",
        "RemoteError",
        "RewrittenError",
        "StorageError",
        "ValueRefusedError",
        "warn",
    ),
    "exchange.distillkit": ("read_distillkit",),
    "exchange.imported_rows": ("import_rows",),
    "exchange.logits": ("export_logits", "import_logits"),
    "exchange.row_files": ("export_rows",),
    "exchange.vllm_answers": ("read_vllm", "vllm_rows"),
    "format.tables": ("expected_size", "rows_per_block"),
    "identities": ("differences", "require_equal"),
    "inputs": ("CheckInputs", "as_values", "each_input", "input_checksums", "input_crc32", "one_input"),
    "labels": ("NotComparableError", "class_ids", "targets"),
    "made_together": ("in_turn", "split_batch", "take_run"),
    "manifest": ("Manifest", "class_list"),
    "parts": ("merge_parts",),
    "positions": ("Positions",),
    "reader": ("LogitCache",),
    "remote.progress": ("show_progress",),
    "remote.publishing": ("Published", "push_cache"),
    "sequences": ("SequenceBatch", "SequenceDataset"),
    "pickled": ("OfOneVersion",),
    "shared_epoch": ("SharedEpoch",),
    "soundness": ("Verify",),
    "source": ("LogitSource", "row_chunks"),
    "statistics.class_order": ("doubt_class_order",),
    "statistics.outputs": (
        "RegressionSummary",
        "SigmoidSummary",
        "Summary",
        "calibration_error",
        "regression_errors",
        "softmax",
        "summarize",
    ),
    "statistics.plausibility": ("Accuracy", "accuracy_in", "accuracy_of", "are_probabilities"),
    "statistics.position_profile": ("PositionProfile", "ShownRow", "profile_positions", "sample_rows"),
    "statistics.positions": ("PositionSummary",),
    "statistics.sigmoids": ("SigmoidScores", "average_precision", "sigmoid_scores"),
    "store.gc": ("Leftover", "leftovers", "remove_leftover"),
    "store.local": ("Store",),
    "store.remote": ("Listed",),
    "stream": ("SoftLabelStream", "attach"),
    "unfinished": ("Unfinished", "find_unfinished", "has_writers"),
    "writer": ("LogitCacheWriter",),
}
"""By module, what is imported when it is first used: whoever wants `decant.cache.io` alone loads neither NumPy nor
h5py.
"""
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"decant.cache.{_MODULES[name]}"), name)
    return found
