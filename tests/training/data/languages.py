# ruff: noqa: RUF001 - letters of other scripts are what this file is about
"""Sentences in many scripts, and what reads them: our own sentences, in the public domain."""

from typing import NamedTuple


class Language(NamedTuple):
    """Two sentences of a language.

    Attributes:
        first, second: sentences, as people type them.
        has_spaces: between its words.
    """

    first: str
    second: str
    has_spaces: bool = True


LANGUAGES = {
    "English": Language("The cat can't sleep.", "Don\u2019t wake the cat!"),
    "German, decomposed": Language("Der Ba\u0308r saß mu\u0308de am Fluß.", "Übung macht den Meister."),
    "French": Language("L\u2019été, «\u00a0déjà vu\u00a0» ?", "Où est le garçon\u2026"),
    "Turkish": Language("IĞDIR\u2019da ılık İstanbul", "Işık kapalı mı?"),
    "Vietnamese": Language("Hôm nay trời đẹp quá", "Tôi đi học tiếng Việt."),
    "Russian": Language("Ёжик идёт в лес.", "Где мой чай?"),
    "Greek": Language("ΛΌΓΟΣ και λόγος", "Ο άνθρωπος διαβάζει."),
    "Hebrew": Language("שָׁלוֹם עוֹלָם", "הילד קורא ספר."),
    "Arabic": Language("كَتَبَ الوَلَدُ رِسَالَةً", "أين الكتاب؟"),
    "Persian": Language("می\u200cخواهم کتاب بخوانم", "هوا خوب است."),
    "Hindi": Language("मैं हिन्दी में किताब पढ़ता हूँ।", "आज मौसम अच्छा है।"),
    "Tamil": Language("நான் தமிழ் படிக்கிறேன்.", "இன்று வானம் நீலம்."),
    "Korean": Language("나는 학교에 갑니다.", "오늘은 날씨가 좋아요."),
    "Chinese": Language("今天天气很好，我们去公园散步。", "她喜欢看书和听音乐！", has_spaces=False),
    "Japanese": Language("私は東京でラーメンを食べました。", "ｶﾞｿﾘﾝが高いですね", has_spaces=False),
    "Thai": Language("วันนี้อากาศดีมาก", "ฉันชอบอ่านหนังสือ", has_spaces=False),
    "Khmer": Language("ខ្ញុំរៀនភាសាខ្មែរ", "ថ្ងៃនេះមេឃស្រឡះ", has_spaces=False),
    "emoji": Language("so much fun 👨\u200d👩\u200d👧 ❤\ufe0f 🙂", "sparks \u2581\u2582\u2583 👍🏽 🇩🇪"),
    "code and lines": Language("a = b\t[0x1F]\r\nif a:\n\n    b += 1", "x\u00b2 \ufb01ne \uff11\uff12"),
}
