"""The words of the demo's travel diaries; each is one token, and the order of the groups fixes the ids."""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<unk>")

_PLAIN = "\n|\n\n|.|?|user|assistant|system|The|the|We|at|last|arrived|in|In|One|day|I|met|who"

_NAMES = """
    Ada Agnes Alice Amos Anna Arthur Bella Boris Bruno Carla Cecil Clara Cyrus David Dora Edgar Edith Elias Ella
    Emil Esther Felix Flora Frank Freda George Grace Greta Harold Hazel Hector Helen Hugo Ida Igor Irene Iris
    Ivan Jacob Jane Jonas Julia Karl Laura Leo Lucy Magda Martha Max Mira Nina Nora Oscar Otto Paul Petra Ralph
    Rosa Ruth Simon Stella Thomas Vera Walter
"""
_SURNAMES = """
    Abbott Adler Archer Baker Barlow Becker Bishop Bolton Brewer Carter Chandler Clark Cooper Crane Dalton Dixon
    Draper Dyer Ellis Falk Farmer Fisher Fletcher Foster Fuller Gibson Glover Gruber Hayes Hooper Hunter Irving
    Jensen Joiner Keller Kramer Larsen Lehmann Mason Mercer Miller Moser Nolan Norris Olsen Palmer Parker Piper
    Porter Quinn Reeves Roper Sawyer Shaw Slater Spencer Stone Tanner Taylor Turner Voss Walker Weaver Wright
"""
_CITIES = """
    Ankara Athens Basel Bergen Berlin Bilbao Bruges Cadiz Cairo Cork Cracow Delft Dublin Geneva Genoa Ghent
    Lisbon London Lyon Madrid Milan Munich Naples Oslo Paris Porto Prague Riga Rome Turin Venice Vienna
"""
_ADJECTIVES = """
    ancient bitter bright broken calm clever cold crooked dark distant dusty faint gentle golden heavy hidden
    hollow lonely narrow pale quiet rough silent slow
"""
_NOUNS = """
    anchor bell boat bridge candle castle cloud coin dog door eagle field forest garden goat harbour hill horse
    island lamp lantern meadow mill moon mountain river road ship shore storm tower wagon
"""
_VERBS = """
    avoided blessed carried chased covered crossed followed greeted guarded joined left lifted lit missed passed
    praised pulled pushed reached saw shook touched warmed watched
"""

GROUPS = {
    "name": tuple(_NAMES.split()),
    "surname": tuple(_SURNAMES.split()),
    "city": tuple(_CITIES.split()),
    "adjective": tuple(_ADJECTIVES.split()),
    "noun": tuple(_NOUNS.split()),
    "verb": tuple(_VERBS.split()),
}

VOCABULARY = SPECIAL + tuple(_PLAIN.split("|")) + tuple(word for group in GROUPS.values() for word in group)
IDS = {word: index for index, word in enumerate(VOCABULARY)}
FIRST_WORD = len(SPECIAL)

# Words are joined by spaces, but not here: (as joined, as written).
TIGHT = (
    (" \n", "\n"),
    ("\n ", "\n"),
    (" .", "."),
    (" ?", "?"),
    (" <|im_end|>", "<|im_end|>"),
    ("<|im_start|> ", "<|im_start|>"),
)


def first_id(group: str) -> int:
    """The id of a group's first word; the others follow it."""
    return IDS[GROUPS[group][0]]
