"""The work that is worth caching: functions on text, slow because they read every word, not by waiting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from math import log, sqrt

WORD = re.compile(r"[^\W\d_]+")
SENTENCE_END = re.compile(r"[.!?]+\s")


def words_of(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def to_html(text: str) -> str:
    """A little Markdown: headings, lists, `code`, **strong** and *emphasis*. HTML in the text is escaped."""
    return "\n".join(_block(block) for block in re.split(r"\n\s*\n", text.strip()) if block)


def statistics_of(text: str) -> dict[str, object]:
    words = words_of(text)
    sentences = len(SENTENCE_END.findall(text + " ")) or 1
    syllables = sum(len(re.findall(r"[aeiouy]+", word)) or 1 for word in words)
    count = len(words) or 1
    return {
        "words": len(words),
        "different words": len(set(words)),
        "sentences": sentences,
        "words in a sentence": round(count / sentences, 1),
        "reading ease (Flesch)": round(206.835 - 1.015 * count / sentences - 84.6 * syllables / count),
        "most frequent": ", ".join(
            word for word, _ in Counter(w for w in words if len(w) > 4).most_common(5)
        ),
    }


def most_similar(wanted: int, texts: Mapping[int, str], places: int = 4) -> list[tuple[int, float]]:
    """The ids whose texts are nearest by tf-idf and cosine, nearest first; reads every word of every text."""
    counts = {key: Counter(words_of(text)) for key, text in texts.items()}
    known_in = Counter(word for count in counts.values() for word in count)
    vectors = {key: _weighted(count, known_in, len(texts)) for key, count in counts.items()}
    target = vectors.pop(wanted)
    scored = ((key, _cosine(target, vector)) for key, vector in vectors.items())
    return sorted(scored, key=lambda pair: -pair[1])[:places]


def common_words(texts: Iterable[str], places: int = 8) -> list[tuple[str, int]]:
    return Counter(word for text in texts for word in words_of(text) if len(word) > 6).most_common(places)


def _block(block: str) -> str:
    if block.startswith("#"):
        level = min(len(block) - len(block.lstrip("#")), 3) + 2
        return f"<h{level}>{_inline(block.lstrip('# '))}</h{level}>"
    lines = block.splitlines()
    if all(line.startswith("- ") for line in lines):
        return "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
    return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    text = escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)


def _weighted(count: Counter[str], known_in: Counter[str], texts: int) -> dict[str, float]:
    return {word: times * log(texts / known_in[word] + 1) for word, times in count.items()}


def _cosine(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    product = sum(weight * b.get(word, 0.0) for word, weight in a.items())
    return product / (_length(a) * _length(b) or 1.0)


def _length(vector: Mapping[str, float]) -> float:
    return sqrt(sum(weight * weight for weight in vector.values()))
