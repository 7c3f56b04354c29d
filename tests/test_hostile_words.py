"""Labels, names and notices of others in cards and in the program of a Space: shown, and not obeyed."""

import html
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from avad_hf import AvacaConfig
from avad_hf.corpora.sharing import contents
from avad_hf.hub.cards import card, code, plain, space_app
from avad_hf.hub.contents import inside
from avad_hf.hub.push import plain_card

from .hostile_checkpoints import WORDS


def shows(markdown: str) -> str:
    """What Markdown shows of one line, without its marks."""
    return html.unescape(re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", markdown))


@pytest.mark.parametrize("words", WORDS)
def test_words_are_shown_and_not_obeyed(words):
    text = plain(words)
    assert "\n" not in text and "<" not in text
    assert not re.search(r"(?<!\\)(\\\\)*[`*\[\]|~]", text)
    assert not re.match(r"[-+#=]|\d+[.)]", text)
    assert shows(text) == " ".join(words.split())
    marks = re.match("`+", code(words))[0]
    assert code(words).endswith(marks) and marks not in code(words)[len(marks) : -len(marks)]


def test_ordinary_words_stay_as_they_are():
    for words in (
        "car_accident",
        "Untrained AVACA (random weights, seed 0): scores mean nothing.",
        "3-D, 2 x 4; A & B",
    ):
        assert plain(words) == words


def test_a_card_with_hostile_words_stays_a_card():
    rows = [{"label": words, "scene": words, "anomaly": 1, "split": "train"} for words in WORDS]
    lines = contents(rows).splitlines()
    assert len(lines) == 4 + len(WORDS)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:]} == {6}
    for words in WORDS:
        config = AvacaConfig(notice=words)
        made = ModelCard(plain_card(config, words, has_processor=True))
        assert made.data.library_name == "avad-hf" and made.data.license is None
        assert f"- {plain(words)}\n" in made.text and f"# {plain(words.split('/')[-1])}\n" in made.text
        assert made.text.count("<!-- use -->") == made.text.count("<!-- /use -->") == 1
        (block,) = re.findall(r"```python\n(.*?)```", made.text, flags=re.DOTALL)
        compile(block, "card", "exec")


@pytest.mark.parametrize("words", WORDS)
def test_metadata_hold_the_words(words):
    made = card("space", {"title": words, "models": [words]}, title=words, model=words, facts=[words])
    front = re.match(r"---\n(.*?)\n---\n", made, flags=re.DOTALL)[1]
    assert yaml.safe_load(front)["title"] == words
    assert ModelCard(made).data.title == words


@pytest.mark.parametrize("words", [*WORDS, "{{ model }}", "\u2028 😀 \0 \r"])
def test_the_program_of_a_space_takes_no_quote(words):
    program = space_app(words)
    compile(program, "app.py", "exec")
    line = next(line for line in program.split("\n") if line.startswith("MODEL = "))
    assert eval(line.removeprefix("MODEL = ")) == words


def test_inside_takes_what_lies_in_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    for name in ("a/x", "b/x", "x..y", "c"):
        assert inside(tmp_path, name, "it") == tmp_path / name
    for name in ("", "..", "a/../..", "C:\\x", "\\x", "a\\..\\..\\x", None, 7):
        with pytest.raises(ValueError, match=r"it is .*, but must be the relative path"):
            inside(tmp_path, name, "it")
