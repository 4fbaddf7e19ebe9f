"""Whisper's languages: their codes, and the English names that some servers answer with."""

_TABLE = """
af=afrikaans am=amharic ar=arabic as=assamese az=azerbaijani ba=bashkir be=belarusian
bg=bulgarian bn=bengali bo=tibetan br=breton bs=bosnian ca=catalan cs=czech cy=welsh da=danish
de=german el=greek en=english es=spanish et=estonian eu=basque fa=persian fi=finnish
fo=faroese fr=french gl=galician gu=gujarati ha=hausa haw=hawaiian he=hebrew hi=hindi
hr=croatian ht=haitian_creole hu=hungarian hy=armenian id=indonesian is=icelandic it=italian
ja=japanese jw=javanese ka=georgian kk=kazakh km=khmer kn=kannada ko=korean la=latin
lb=luxembourgish ln=lingala lo=lao lt=lithuanian lv=latvian mg=malagasy mi=maori mk=macedonian
ml=malayalam mn=mongolian mr=marathi ms=malay mt=maltese my=myanmar ne=nepali nl=dutch
nn=nynorsk no=norwegian oc=occitan pa=punjabi pl=polish ps=pashto pt=portuguese ro=romanian
ru=russian sa=sanskrit sd=sindhi si=sinhala sk=slovak sl=slovenian sn=shona so=somali
sq=albanian sr=serbian su=sundanese sv=swedish sw=swahili ta=tamil te=telugu tg=tajik th=thai
tk=turkmen tl=tagalog tr=turkish tt=tatar uk=ukrainian ur=urdu uz=uzbek vi=vietnamese
yi=yiddish yo=yoruba yue=cantonese zh=chinese
"""

_ALIASES = """
burmese=my castilian=es flemish=nl haitian=ht letzeburgesch=lb mandarin=zh moldavian=ro
moldovan=ro panjabi=pa pushto=ps sinhalese=si valencian=ca
"""

NAMES = dict(entry.replace("_", " ").split("=") for entry in _TABLE.split())
"""The language of every code."""
_CODES = dict(entry.split("=") for entry in _ALIASES.split())
_CODES |= {name: code for code, name in NAMES.items()} | {code: code for code in NAMES}
_UNKNOWN = frozenset({"", "auto", "none", "null", "und", "unknown"})


def is_known(language: str) -> bool:
    """Whether Whisper knows a language by this code or English name; "auto" is no language."""
    return code(language) in (None, *NAMES)


def code(language: str | None) -> str | None:
    """The code of a language given by code or English name; what is neither stays as it is."""
    if language is None:
        return None
    word = " ".join(language.lower().split())
    return None if word in _UNKNOWN else _CODES.get(word, language.strip())
