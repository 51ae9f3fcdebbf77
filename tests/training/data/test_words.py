"""Words of a text in any script, for methods that count words."""

import pytest

from training.data.words import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("can't stop!! a_b 3", ["can", "'", "t", "stop", "!!", "a_b", "3"]),
        ("पढ़ता हूँ।", ["पढ़ता", "हूँ", "।"]),
        ("كَتَبَ الوَلَدُ", ["كَتَبَ", "الوَلَدُ"]),
        ("今天,very好", ["今", "天", ",", "very", "好"]),
        ("น้ำ ดี", ["น้", "ำ", "ดี"]),
        ("カメラ用", ["カ", "メ", "ラ", "用"]),
        ("🙂🙂 ok", ["🙂🙂", "ok"]),
        ("", []),
    ],
)
def test_words_keep_their_marks_and_letters_without_spaces_stand_alone(text: str, words: list[str]) -> None:
    assert words_of(text) == words
