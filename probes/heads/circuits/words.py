"""Words that the built-in tasks are made of: common ones, which most vocabularies hold as one token."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Mary John Tom James Dan Martin Amy Sarah Simon Anna Peter Paul Laura Mark David Alice Robert Emma Kevin Lisa "
    "Michael Susan Richard Kate Thomas Jane Daniel Rachel Andrew Helen Steven Jack Adam Julia Eric Ruth Brian Emily "
    "George Sam Henry Lucy Edward Grace Scott Clara Luke Maria Ben Rose Charles Victoria Frank Karen"
)
PLACES = _words(
    "garden market library museum station hotel school office park beach restaurant theatre hospital church"
)
OBJECTS = _words(
    "book ring letter ticket drink key map camera gift phone basket hat ball coin box paper"
)
COLOURS = _words("red blue green yellow black white orange purple brown pink silver gold")
THINGS = _words("pen cup book box ball hat bag key ring plate chair lamp clock bottle coat bowl")
ARGUMENTS = _words(
    "name file text size color index count value data path key list user query order state line item field event "
    "image group limit start title label table number code type"
)
FUNCTIONS = _words("send load read find make open move save build check match parse")
PLAIN = _words(
    "city garden music paper water winter market teacher forest captain mountain island season research course "
    "pepper silver control issue river letter bridge summer"
)
NOUNS = (
    ("author", "authors"), ("doctor", "doctors"), ("teacher", "teachers"), ("student", "students"),
    ("driver", "drivers"), ("farmer", "farmers"), ("manager", "managers"), ("officer", "officers"),
    ("artist", "artists"), ("scientist", "scientists"), ("writer", "writers"), ("actor", "actors"),
    ("player", "players"), ("worker", "workers"), ("king", "kings"), ("book", "books"), ("house", "houses"),
    ("car", "cars"), ("picture", "pictures"), ("song", "songs"), ("letter", "letters"), ("plan", "plans"),
)  # fmt: skip
PERIODS = _words(
    "war project voyage reign trial contract plan conflict expedition programme study mission campaign"
)
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid", "Japan": "Tokyo",
    "Russia": "Moscow", "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens", "Cuba": "Havana",
    "Portugal": "Lisbon", "Austria": "Vienna", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm",
    "Poland": "Warsaw", "Hungary": "Budapest", "Denmark": "Copenhagen", "Finland": "Helsinki", "Peru": "Lima",
    "Chile": "Santiago", "Kenya": "Nairobi", "Iran": "Tehran", "Iraq": "Baghdad", "Turkey": "Ankara",
    "Canada": "Ottawa", "Thailand": "Bangkok", "Belgium": "Brussels", "Syria": "Damascus", "Lebanon": "Beirut",
    "Ukraine": "Kyiv", "Scotland": "Edinburgh", "England": "London", "Colombia": "Bogota", "Vietnam": "Hanoi",
    "Argentina": "Buenos Aires", "Afghanistan": "Kabul", "Switzerland": "Bern", "Romania": "Bucharest",
}  # fmt: skip
CONTINENTS = {
    "Europe": _words(
        "France Italy Germany Spain Greece Portugal Austria Ireland Norway Sweden Poland Hungary Denmark Finland "
        "Belgium Romania Switzerland"
    ),
    "Africa": _words(
        "Egypt Kenya Nigeria Ghana Morocco Algeria Ethiopia Uganda Sudan Libya Zimbabwe"
    ),
    "Asia": _words("Japan China India Iran Iraq Thailand Vietnam Pakistan Nepal Korea Mongolia"),
    "South America": _words(
        "Peru Chile Colombia Argentina Brazil Bolivia Ecuador Paraguay Uruguay"
    ),
}
LANGUAGES = {
    "France": "French", "Italy": "Italian", "Germany": "German", "Spain": "Spanish", "Japan": "Japanese",
    "Russia": "Russian", "China": "Chinese", "Greece": "Greek", "Portugal": "Portuguese", "Poland": "Polish",
    "Sweden": "Swedish", "Denmark": "Danish", "Finland": "Finnish", "Turkey": "Turkish", "Hungary": "Hungarian",
    "Brazil": "Portuguese", "Mexico": "Spanish", "Argentina": "Spanish", "Austria": "German", "Egypt": "Arabic",
    "Iraq": "Arabic", "England": "English", "Australia": "English", "Korea": "Korean", "Vietnam": "Vietnamese",
}  # fmt: skip
