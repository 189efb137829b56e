"""Texts → a token file: every source gives the same tokens, the file is found again or refused by name, bad input is
one line, and a kill leaves nothing.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import MismatchError, StorageError
from decant.pipeline.corpus import Corpus, tokenise
from decant.pipeline.errors import DamagedError, DataError
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers import language
from tests.helpers.extras import needs

TEXTS = language.sentences(40)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return language.tokenizer()


def words(corpus: Corpus, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(corpus.document(index).tolist()) for index in range(len(corpus))]


def learnt(corpus: Corpus, tokenizer: Any, index: int = 0) -> str:
    """The tokens of a document that are learnt from, as text."""
    first, end = corpus.offsets[index : index + 2].tolist()
    return str(tokenizer.decode(corpus.tokens(first, end)[corpus.targets(first, end)].tolist()))


def test_documents_come_back_as_they_were_and_end_in_the_end_of_text(tokenizer: Any, tmp_path: Path) -> None:
    corpus = tokenise(TEXTS, tokenizer, tmp_path / "c.tokens")
    assert words(corpus, tokenizer) == [f"{text}<|end|>" for text in TEXTS]
    assert corpus.num_tokens == corpus.offsets[-1] == sum(len(corpus.document(i)) for i in range(len(corpus)))
    again = pickle.loads(pickle.dumps(corpus))
    assert np.array_equal(again.tokens(0, 100), corpus.tokens(0, 100))
    without = tokenise(TEXTS, tokenizer, tmp_path / "d.tokens", end_of_text=False)
    assert words(without, tokenizer) == TEXTS


def test_files_of_each_kind_give_the_same_tokens_as_rows_in_memory(tokenizer: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\ufeff" + "\n\n".join(json.dumps({"text": text, "id": 3}) for text in TEXTS), "utf-8")
    joined = tmp_path / "joined.txt"
    joined.write_bytes("\r\n%\r\n".join(TEXTS).encode())
    folder = tmp_path / "texts" / "inner"
    folder.mkdir(parents=True)
    for place, text in enumerate(TEXTS):
        (folder / f"{place:03}.txt").write_text(text)
    path = tmp_path / "c.tokens"
    expected = tokenise(TEXTS, tokenizer, path)
    for source, separator in ((rows, None), (joined, "\n%\n"), (folder.parent, None), ([rows], None)):
        assert tokenise(source, tokenizer, path, separator=separator).identity == expected.identity, source


@pytest.mark.parametrize("kind", ["parquet", "saved", "dataset"])
def test_tables_of_libraries_give_the_same_tokens(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": TEXTS, "other": list(range(len(TEXTS)))})
    source: Any = rows
    if kind == "parquet":
        source = tmp_path / "rows.parquet"
        rows.to_parquet(str(source))
    elif kind == "saved":
        source = tmp_path / "saved"
        rows.save_to_disk(str(source))
    path = tmp_path / "c.tokens"
    expected = tokenise(TEXTS, tokenizer, path)
    assert tokenise(source, tokenizer, path).identity == expected.identity


test_tables_of_libraries_give_the_same_tokens.pytestmark += needs("datasets")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "arguments"), [("to_dict", ("records",)), ("to_dicts", ()), ("to_pylist", ())]
)
def test_tables_in_memory_are_read_row_by_row(
    method: str, arguments: tuple[str, ...], tokenizer: Any, tmp_path: Path
) -> None:
    """Those of pandas, polars and Arrow: the first of these gives the names of its columns when it is iterated over."""

    class Table:
        columns = ("text", "number")

        def __iter__(self) -> Any:
            return iter(self.columns)

    def rows(_: Table, *given: str) -> list[dict[str, Any]]:
        assert given == arguments
        return [{"text": text, "number": place} for place, text in enumerate(TEXTS)]

    setattr(Table, method, rows)
    expected = tokenise(TEXTS, tokenizer, tmp_path / "c.tokens")
    assert tokenise(Table(), tokenizer, tmp_path / "c.tokens").identity == expected.identity  # type: ignore[arg-type]


def test_special_tokens_in_texts_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where documents are run together by them, a message holds one, or a text begins with what is added to it."""
    import tokenizers

    tokenizer = language.tokenizer()
    plain = [*TEXTS[:3], "one<|end|>two", "ended<|end|>\n"]
    tokenise(plain, tokenizer, tmp_path / "plain")
    said = capsys.readouterr().err
    assert (
        "1 of 5 documents have special tokens in their text, the first is texts: row 4 with <|end|>" in said
    )
    assert "split the texts by them (separator)" in said
    tokenise([language.chat("a<|end|><|assistant|>b", "c")], tokenizer, tmp_path / "chat")
    assert "so a message may end itself" in capsys.readouterr().err

    tokenizer.bos_token = "<|user|>"
    added = [("<|user|>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=added
    )
    tokenise(["a", "<|user|>b"], tokenizer, tmp_path / "twice")
    said = capsys.readouterr().err
    assert "1 of 2 documents begin with <|user|> twice, the first is texts: row 2" in said
    assert "special tokens in their text" not in said


def test_a_tokenizer_that_reads_special_tokens_as_characters_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = language.tokenizer()
    whole = tokenise(["one<|end|>two"], tokenizer, tmp_path / "c").document(0)
    tokenizer.split_special_tokens = True
    with pytest.raises(MismatchError, match=r"tokenizer\.special_tokens"):
        tokenise(["one<|end|>two"], tokenizer, tmp_path / "c")
    capsys.readouterr()
    assert len(tokenise(["one<|end|>two"], tokenizer, tmp_path / "d").document(0)) > len(whole)
    assert not capsys.readouterr().err


def test_what_is_doubtful_of_chats_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_what_was_said()
    dated = language.tokenizer("{{ strftime_now('%d %b %Y') }}" + language.TEMPLATE)
    tokenise([language.chat("a", "b"), language.chat("c", "d")], dated, tmp_path / "dated")
    assert capsys.readouterr().err.count("the chat template writes the date of today") == 1
    written = json.dumps(language.chat("a", "b")["messages"])
    tokenise([{"turns": written}, {"turns": written}], dated, tmp_path / "json", column="turns")
    assert capsys.readouterr().err.count("is a chat written as JSON") == 1
    beside = {"tools": [{"name": "f"}], "chat_template_kwargs": {"enable_thinking": False}}
    prompt, completion = ([message] for message in language.chat("a", "b")["messages"])
    for place, row in enumerate(({"prompt": prompt, "completion": completion}, language.chat("a", "b"))):
        forget_what_was_said()
        tokenise([{**row, **beside}] * 2, language.tokenizer(), tmp_path / f"beside-{place}")
        said = capsys.readouterr().err
        for name in beside:
            assert said.count(f"has {name}, which are not given to the chat template") == 1, said


def test_nulls_that_a_table_puts_into_messages_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arguments of one tool call become fields of all, as a table has one kind of row."""

    def rows(*arguments: dict[str, Any]) -> list[dict[str, Any]]:
        calls = [[{"function": {"name": "f", "arguments": each}}] for each in arguments]
        first = {"role": "user", "content": "a", "tool_calls": None}
        return [{"messages": [first, {"role": "assistant", "tool_calls": call}]} for call in calls]

    forget_what_was_said()
    tokenise(rows({"city": "Paris"}, {"unit": "C"}), language.tokenizer(), tmp_path / "rows")
    assert "null" not in capsys.readouterr().err
    of_table = rows({"city": "Paris", "unit": None}, {"city": None, "unit": "C"})
    tokenise(of_table, language.tokenizer(), tmp_path / "table")
    assert capsys.readouterr().err.count("texts: row 1: message 2: has null inside") == 1


def test_of_a_chat_the_assistants_words_are_targets_whether_the_template_marks_them_or_not(
    tmp_path: Path,
) -> None:
    rows = [language.chat("how was it?", "great fun", "and?", "moving"), language.chat("and you?", "boring")]
    for name, template in (("plain", language.TEMPLATE), ("marked", language.MARKED)):
        tokenizer = language.tokenizer(template)
        corpus = tokenise(rows, tokenizer, tmp_path / name, targets="assistant")
        assert words(corpus, tokenizer)[0].startswith(
            "<|user|>how was it?<|end|><|assistant|>great fun<|end|><|user|>"
        )
        assert learnt(corpus, tokenizer) == "great fun<|end|>moving<|end|>"
        assert learnt(corpus, tokenizer, 1) == "boring<|end|>"
        whole = tokenise(rows, tokenizer, tmp_path / f"{name}-all")
        assert whole.all_targets
        assert words(whole, tokenizer) == words(corpus, tokenizer)


def test_a_tokenizer_that_leaves_out_numbers_is_taken(tmp_path: Path) -> None:
    tokenizer = language.tokenizer()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 500, "content": "<|far|>"})
    content["model"]["vocab"]["<|far|>"] = 500
    import tokenizers
    import transformers

    learnt = tokenizers.Tokenizer.from_str(json.dumps(content))
    far = transformers.PreTrainedTokenizerFast(tokenizer_object=learnt, eos_token="<|end|>")
    corpus = tokenise(["a <|far|> film"], far, tmp_path / "c")
    assert 500 in corpus.document(0)
    assert corpus.num_ids == 501


def test_of_a_prompt_the_completion_alone_is_learnt_from(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "the film was", "completion": " great fun"}]
    corpus = tokenise(rows, tokenizer, tmp_path / "c", targets="assistant")
    assert words(corpus, tokenizer) == ["the film was great fun<|end|>"]
    assert learnt(corpus, tokenizer) == " great fun<|end|>"
    turns = language.chat("how was it?", "great fun", "and?", "moving")["messages"]
    given = tokenise(
        [{"prompt": turns[:3], "completion": turns[3:]}], tokenizer, tmp_path / "d", targets="assistant"
    )
    assert learnt(given, tokenizer) == "moving<|end|>"


def test_other_texts_tokenizers_templates_and_options_are_refused_by_name(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "c"
    tokenise(TEXTS, tokenizer, path)
    pad = language.tokenizer()
    pad.pad_token = pad.eos_token
    tokenise(TEXTS, pad, path)  # which changes no token
    one_more = language.tokenizer()
    one_more.add_tokens(["wonderful"])
    cases: list[tuple[str, Any, list[str], dict[str, Any]]] = [
        ("texts.sha256", tokenizer, [*TEXTS[:-1], "another"], {}),
        ("texts.count", tokenizer, TEXTS[:-1], {}),
        ("tokenizer.vocabulary", language.tokenizer(seed=5), TEXTS, {}),
        ("tokenizer.model", language.tokenizer(seed=5), TEXTS, {}),
        ("tokenizer.added_tokens", one_more, TEXTS, {}),
        ("tokenizer.chat_template", language.tokenizer(language.MARKED), TEXTS, {}),
        ("options.end_of_text", tokenizer, TEXTS, {"end_of_text": False}),
    ]
    for field, other, texts, options in cases:
        with pytest.raises(MismatchError, match=field):
            tokenise(texts, other, path, **options)


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (["fine", "a\0b"], {}, "row 2: has a NUL at character 1"),
    (["\ud800"], {}, "half a surrogate pair"),
    ([""], {}, "all documents are empty"),
    ([], {}, "there are no documents"),
    ([{"body": "a"}], {}, "has the columns body, and none of text"),
    ([{"text": "a", "messages": []}], {}, "several could be the text"),
    ([{"text": "a"}], {"column": "body"}, "has no body; it has text"),
    ([{"messages": [{"content": "a"}]}], {}, "message 1: has no role"),
    ([{"messages": [{"role": "user", "content": [{"type": "image"}]}]}], {}, "texts alone are read"),
    (iter(["a"]), {}, "texts are read twice"),
    (["a"], {"targets": "assistant"}, "is a plain text, in which no assistant speaks"),
    ([language.chat("only a question")], {"targets": "assistant"}, "no message is of the assistant"),
    (["a"], {"targets": "user"}, 'expected "all" or "assistant"'),
    (["a"], {"separator": ""}, "separator"),
    ({"train": ["a"]}, {}, "has the parts train"),
    ([{"messages": '[{"role": "user"}]'}], {}, r"messages: is a text, .* parse it first \(json.loads\)"),
    ([{"messages": [{"from": "human", "value": "a"}]}], {}, "as ShareGPT writes them: rename from to role"),
    ([{"text": ["a", "b"]}], {}, "expected a text or a list of messages, found list of str"),
    ([{"prompt": "a", "completion": [{"role": "user", "content": "b"}]}], {}, "found one of each"),
    (
        [{"messages": [{"role": "User", "content": "a"}]}],
        {"targets": "assistant"},
        "the roles that may be learnt from are User",
    ),
]


@pytest.mark.parametrize(("texts", "options", "said"), REFUSED, ids=[said[:30] for *_, said in REFUSED])
def test_bad_texts_are_one_line_and_leave_no_file(
    texts: Any, options: dict[str, Any], said: str, tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said) as raised:
        tokenise(texts, tokenizer, tmp_path / "c.tokens", **options)
    assert "\n" not in str(raised.value)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


FILES: list[tuple[str, bytes, str]] = [
    ("a.txt", b"first\nsecond \xe9t\xe9", r"a.txt: line 2, byte 13 \(0xe9\) is not UTF-8; convert it"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"line 2: byte 10 \(0xff\) is not UTF-8"),
    ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl: line 2: not JSON"),
    ("a.jsonl", b'[\n{"text": "a"}\n]', "line 1: not JSON .*; a .jsonl file has a row a line, as jq -c"),
    ("a.jsonl", b'[{"text": "a"}]', "line 1: expected a row, found a list; a .jsonl file has a row a line"),
    ("a.txt", "a".encode("utf-16"), "a.txt: is UTF-16; convert it, as iconv -f UTF-16"),
    ("a.csv", b"text\na\n", "expected a file that ends in .txt, .jsonl, .parquet"),
]


@pytest.mark.parametrize(("name", "content", "said"), FILES)
def test_bad_files_are_named_with_the_place(
    name: str, content: bytes, said: str, tokenizer: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        tokenise(tmp_path / name, tokenizer, tmp_path / "c")


def test_places_that_are_no_files_are_one_line(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing: no such file or folder"):
        tokenise(tmp_path / "nothing", tokenizer, tmp_path / "c")
    with pytest.raises(StorageError, match="reading the tokens: Is a directory"):
        tokenise(TEXTS, tokenizer, tmp_path)
    with pytest.raises(StorageError, match="writing the tokens"):
        tokenise(TEXTS, tokenizer, "/proc/nothing/c")


def test_a_name_of_a_file_is_not_taken_for_a_text(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    with pytest.raises(DataError, match="is the name of a file; give pathlib"):
        tokenise([str(tmp_path / "a.txt")], tokenizer, tmp_path / "c")


def test_a_tokenizer_that_lacks_what_is_needed_is_said(tmp_path: Path) -> None:
    no_end = language.tokenizer()
    no_end.eos_token = None
    with pytest.raises(DataError, match="has no end-of-text token"):
        tokenise(["a"], no_end, tmp_path / "c")
    assert len(tokenise(["a"], no_end, tmp_path / "c", end_of_text=False)) == 1
    with pytest.raises(DataError, match="has no chat template"):
        tokenise([language.chat("a", "b")], language.tokenizer(None), tmp_path / "d")
    changing = "{% for m in messages %}{{ m.content }}{% if loop.last %}.{% endif %}{% endfor %}"
    with pytest.raises(DataError, match="otherwise when more follows"):
        tokenise(
            [language.chat("a", "b", "c", "d")],
            language.tokenizer(changing),
            tmp_path / "d",
            targets="assistant",
        )
    with pytest.raises(DataError, match="chat template refuses it"):
        tokenise([language.chat("a")], language.tokenizer("{{ raise_exception('no') }}"), tmp_path / "d")


def test_empty_documents_and_other_files_are_counted(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").mkdir()
    for name, text in (("a.txt", "a"), ("b.txt", " \n"), ("picture.png", "x")):
        (tmp_path / "texts" / name).write_text(text)
    corpus = tokenise(tmp_path / "texts", tokenizer, tmp_path / "c")
    said = capsys.readouterr().err
    assert len(corpus) == 1
    assert "1 of 2 documents are empty and left out, the first is" in said
    assert "b.txt" in said
    assert "1 file is left out, as picture.png" in said


@pytest.mark.parametrize(("name", "refused"), [("locked", True), (".locked", False)])
def test_a_folder_in_it_that_may_not_be_read_is_refused_unless_it_is_hidden(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, refused: bool
) -> None:
    """Its texts would be missing, and nobody told. Root may read everything, so that the denial is made here."""
    (tmp_path / "texts" / name).mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("a")
    entries = os.scandir

    def denied(path: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(os, "scandir", denied)
    if refused:
        with pytest.raises(DataError, match=f"{name}: cannot be read: Permission denied$"):
            tokenise(tmp_path / "texts", tokenizer, tmp_path / "c")
    else:
        assert len(tokenise(tmp_path / "texts", tokenizer, tmp_path / "c")) == 1


def test_damage_is_found_when_the_block_is_read(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "c"
    corpus = tokenise(TEXTS, tokenizer, path)
    content = bytearray(path.read_bytes())
    path.chmod(0o644)
    for place, said in (
        (8192 + 20, "not as it was written"),
        (0, "not a token file"),
        (40, "cannot be read"),
    ):
        damaged = bytearray(content)
        damaged[place] ^= 0x40
        path.unlink()
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=said):
            Corpus(path).tokens(0, corpus.num_tokens)
    path.write_bytes(content[:-8])
    with pytest.raises(DamagedError, match=r"expected .* bytes, found"):
        Corpus(path)


def test_a_kill_leaves_no_file_and_the_next_run_no_draft(tmp_path: Path) -> None:
    script = f"""
import os, signal
from decant.pipeline.corpus import tokenise
from tests.helpers import language
class Killing:
    times = 0
    def __iter__(self):
        self.times += 1
        for place, text in enumerate(language.sentences(600)):
            if self.times == 2 and place == 500 and not os.environ.get("WHOLE"):
                os.kill(os.getpid(), signal.SIGKILL)
            yield text
print(len(tokenise(Killing(), language.tokenizer(), {str(tmp_path / "c.tokens")!r})))
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "c.tokens").exists()
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix == ".draft"] == [".draft"]
    again = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "WHOLE": "1"}
    )
    assert again.stdout.strip() == "600", again.stderr
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".draft"]


def test_texts_that_change_while_they_are_read_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    class Changing:
        times = 0

        def __iter__(self) -> Any:
            self.times += 1
            yield f"read {self.times}"

    with pytest.raises(DataError, match="have changed while they were tokenised"):
        tokenise(Changing(), tokenizer, tmp_path / "c")
    assert not (tmp_path / "c").exists()
