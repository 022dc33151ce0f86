"""The words and the fixed facts of the demo world. Every word here is one token with its leading space."""

# ruff: noqa: SIM905 - a word list reads better than a list of quoted words

NAMES = (
    "Anna Bob Tom Mia Leo Eva Max Zoe Sam Lily Jack Nora Ben Ivy Dan Rosa Paul Kate "
    "Finn Ella Hugo Lucy Omar Ruth Adam Jane Carl Dora Emil Gina Ivan June"
).split()
PLACES = "kitchen garden school shop park bedroom office barn hall library market station cellar attic forest beach".split()
OBJECTS = (
    "key cup ball book lamp hat coin map bell rope drum kite ring pen spoon knife bowl candle mirror bottle "
    "brush button clock comb doll fork glove hammer jar nail pillow plate saw scarf shoe stone"
).split()
COLOURS = "red blue green yellow black white brown pink purple orange".split()
MADE_UP = (
    "dax wug blick tolo mip zorp fen gav hib kez lum nok pov rix sul tam vek yim bim dorp fip gorm jaz kliv mox nerf plok quib"
).split()
COUNTABLES = "coins apples stones nuts eggs beads cards pens".split()
ORDINALS = "first second third fourth fifth".split()
NUMBERS = [str(n) for n in range(21)]
FEELINGS = "sad glad angry calm proud afraid".split()
HAPPENINGS = "broke fell vanished returned burned arrived".split()

# Why people of this world go somewhere: the reason is always the place's own.
REASONS = {
    "kitchen": "hungry",
    "bedroom": "tired",
    "library": "curious",
    "park": "bored",
    "shop": "poor",
    "garden": "hot",
    "hall": "cold",
    "market": "thirsty",
}

# animal: (what it eats, where it lives, its young)
ANIMALS = {
    "cow": ("grass", "farm", "calf"),
    "sheep": ("grass", "hill", "lamb"),
    "horse": ("hay", "farm", "foal"),
    "dog": ("meat", "house", "puppy"),
    "cat": ("fish", "house", "kitten"),
    "hen": ("corn", "farm", "chick"),
    "duck": ("bread", "lake", "duckling"),
    "bear": ("honey", "wood", "cub"),
    "goat": ("leaves", "hill", "kid"),
    "frog": ("flies", "lake", "tadpole"),
    "pig": ("corn", "farm", "piglet"),
    "deer": ("leaves", "wood", "fawn"),
    "wolf": ("meat", "wood", "pup"),
    "seal": ("fish", "sea", "calf"),
    "crab": ("weed", "sea", "larva"),
    "owl": ("mice", "wood", "owlet"),
}
FACT_QUESTIONS = ("eats", "lives at the", "has a young called")

OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("wet", "dry"),
    ("up", "down"),
    ("day", "night"),
    ("old", "new"),
    ("fast", "slow"),
    ("full", "empty"),
    ("open", "shut"),
    ("loud", "quiet"),
    ("rich", "poor"),
    ("hard", "soft"),
    ("high", "low"),
    ("dark", "bright"),
)
TRADES = (
    ("baker", "oven"),
    ("tailor", "thread"),
    ("farmer", "plough"),
    ("painter", "easel"),
    ("miner", "pick"),
    ("sailor", "ship"),
    ("doctor", "pill"),
    ("judge", "law"),
    ("cook", "pan"),
    ("barber", "razor"),
)


def relations() -> dict[str, list[tuple[str, str]]]:
    """The world's fixed relations, each a list of (left, right) pairs with distinct left sides."""
    eats = [(animal, facts[0]) for animal, facts in ANIMALS.items()]
    young = [(animal, facts[2]) for animal, facts in ANIMALS.items()]
    return {"opposite": list(OPPOSITES), "trade": list(TRADES), "eats": eats, "young": young}


def vocabulary() -> list[str]:
    """Every content word of the world, sorted: the source of the random-words calibration set."""
    words = {*NAMES, *PLACES, *OBJECTS, *COLOURS, *MADE_UP, *COUNTABLES, *ORDINALS, *NUMBERS}
    words |= {*FEELINGS, *HAPPENINGS, *REASONS.values(), *ANIMALS}
    for pairs in relations().values():
        words |= {word for pair in pairs for word in pair}
    words |= {facts[1] for facts in ANIMALS.values()}
    return sorted(words)
