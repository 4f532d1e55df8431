"""Notes to begin with: made up from a few words, the same ones every time."""

from collections.abc import Iterator
from random import Random

TOPICS = {
    "Garden": "tomato seedling compost trellis basil watering soil frost mulch beetle rose pruning hedge",
    "Sailing": "mainsail rudder harbour tide anchor knot keel compass breeze jib mast lighthouse buoy",
    "Baking": "dough yeast oven crust flour butter sourdough proofing kneading caramel vanilla crumb glaze",
    "Chess": "opening gambit bishop endgame castle sacrifice tempo pawn rook fork blunder clock queen",
    "Stars": "nebula orbit telescope comet eclipse galaxy lens meteor planet horizon spectrum moon crater",
}
EVERYDAY = "I remember that today again slowly the with a small good another almost first under before while"
NOTES_PER_TOPIC = 8
SENTENCES = 120


def sample_notes() -> Iterator[tuple[str, str]]:
    random = Random(2024)
    for topic, words in TOPICS.items():
        for _ in range(NOTES_PER_TOPIC):
            first, second = random.sample(words.split(), 2)
            yield f"{topic}: {first} and {second}", _text(random, words.split())


def _text(random: Random, words: list[str]) -> str:
    favourites = random.sample(words, 6)
    paragraphs = []
    for _ in range(SENTENCES // 6):
        sentences = (_sentence(random, favourites + words) for _ in range(6))
        paragraphs.append(" ".join(sentences))
        if random.random() < 0.3:
            paragraphs.append(f"## About the {random.choice(favourites)}")
        if random.random() < 0.2:
            paragraphs.append("\n".join(f"- a **{word}**" for word in random.sample(words, 3)))
    return "\n\n".join(paragraphs)


def _sentence(random: Random, words: list[str]) -> str:
    chosen = [
        random.choice(words if random.random() < 0.4 else EVERYDAY.split())
        for _ in range(random.randint(5, 14))
    ]
    return " ".join(chosen).capitalize() + "."
