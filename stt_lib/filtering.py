"""Which of the server's segments are speech: a pure function from segments to a verdict.

Whisper writes text under noise and silence, too. The phrases here are the ones it writes most
often there (M. Barański et al., "Investigation of Whisper ASR Hallucinations Induced by
Non-Speech Audio", ICASSP 2025), less those that people really say in passing.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stt_lib.model import Segment


class Reason(StrEnum):
    """Why a segment was dropped."""

    BLANK = "blank"
    SOUND_TAG = "sound_tag"
    KNOWN_PHRASE = "known_phrase"
    LONELY_POLITENESS = "lonely_politeness"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A segment that is not speech, and why we think so."""

    segment: Segment
    reason: Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every segment of an answer, in order, on one side or the other."""

    kept: tuple[Segment, ...]
    dropped: tuple[Dropped, ...]


_TAG = r"\*[^*]*\*|\[[^\]]*\]|\([^)]*\)|（[^）]*）|【[^】]*】|♪[^♪]*♪?"
_ONLY_TAGS = re.compile(rf"(?:(?:{_TAG})[\s.,!?…]*)+")


def normal_form(text: str) -> str:
    """One form for comparing: compatibility characters folded, no case, no punctuation."""
    if text.isascii():
        return " ".join(text.lower().translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = (c if _is_word_character(c) else " " for c in folded if c not in "'’")
    return " ".join("".join(letters).split())


_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()} | {ord("'"): None}
"""The same for plain ASCII, in a tenth of the time."""


def _is_word_character(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


KNOWN_PHRASES = frozenset(
    map(
        normal_form,
        (
            "Thanks for watching",
            "Thanks for watching and I'll see you in the next video",
            "Thank you for watching",
            "Thank you so much for watching",
            "Thank you very much for watching",
            "Please subscribe to my channel",
            "Please like and subscribe",
            "Don't forget to like and subscribe",
            "Like and subscribe",
            "See you in the next video",
            "I'll see you in the next one",
            "I'm not sure what I'm doing here",
            "Subtitles by the Amara.org community",
            "Subtitles by Amara.org",
            "Subs by www.zeoranger.co.uk",
            "Transcription by CastingWords",
            "Meow",
            "Untertitel der Amara.org-Community",
            "Untertitel im Auftrag des ZDF für funk, 2017",
            "Untertitelung des ZDF, 2020",
            "Sous-titres réalisés par la communauté d'Amara.org",
            "Sous-titrage ST' 501",
            "Subtítulos realizados por la comunidad de Amara.org",
            "Subtítulos por la comunidad de Amara.org",
            "Sottotitoli creati dalla comunità Amara.org",
            "Legendas pela comunidade Amara.org",
            "Ondertiteld door de Amara.org gemeenschap",
            "Napisy stworzone przez społeczność Amara.org",
            "Продолжение следует",
            "Субтитры сделал DimaTorzok",
            "Субтитры создавал DimaTorzok",
            "Редактор субтитров А.Семкин Корректор А.Егорова",
            "Дякую за перегляд",
            "Спасибо за просмотр",
            "ご視聴ありがとうございました",
            "おやすみなさい",
            "字幕由 Amara.org 社群提供",
            "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
            "MBC 뉴스",
            "시청해주셔서 감사합니다",
        ),
    )
)
"""Dropped wherever a whole segment says nothing else: nobody says these to a recorder."""

POLITENESS = frozenset(
    map(
        normal_form,
        (
            "Thank you",
            "Thank you.  Thank you",
            "Thank you very much",
            "Thank you so much",
            "Thanks",
            "You",
            "Bye",
            "Bye-bye",
            "Bye. Bye",
            "Gracias",
            "Muchas gracias",
            "Obrigado",
            "Merci",
            "Danke",
            "Vielen Dank",
            "Grazie",
            "Dziękuję",
            "Спасибо",
            "Дякую",
            "ありがとうございました",
            "谢谢",
            "감사합니다",
        ),
    )
)
"""People do say these, but not alone in a recording: dropped when nothing else was heard."""


def judge(segments: Sequence[Segment]) -> Verdict:
    """Separate speech from what the model makes up.

    Blank segments, sound tags and known phrases are dropped; when nothing but politeness
    is left over, that is dropped as well.
    """
    reasons = [_reason(segment.text) for segment in segments]
    left = [s for s, reason in zip(segments, reasons, strict=True) if reason is None]
    if left and all(normal_form(segment.text) in POLITENESS for segment in left):
        reasons = [reason or Reason.LONELY_POLITENESS for reason in reasons]
    judged = list(zip(segments, reasons, strict=True))
    return Verdict(
        kept=tuple(segment for segment, reason in judged if reason is None),
        dropped=tuple(Dropped(segment, reason) for segment, reason in judged if reason),
    )


def _reason(text: str) -> Reason | None:
    if _ONLY_TAGS.fullmatch(text.strip()):
        return Reason.SOUND_TAG
    words = normal_form(text)
    if not words:
        return Reason.BLANK
    if words in KNOWN_PHRASES:
        return Reason.KNOWN_PHRASE
    return None
