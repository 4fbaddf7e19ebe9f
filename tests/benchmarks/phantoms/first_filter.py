"""The filter that stt began with, to measure against: two lists of phrases and sound tags."""

from collections.abc import Sequence

from stt_lib.domain.models import Segment
from stt_lib.domain.text import is_sound_tag, normal_form

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


def kept_at_first(segments: Sequence[Segment]) -> list[bool]:
    """Whether each segment was kept."""
    kept = [_is_kept(segment.text) for segment in segments]
    left = [segment for segment, is_kept in zip(segments, kept, strict=True) if is_kept]
    is_polite = all(normal_form(segment.text) in POLITENESS for segment in left)
    return [is_kept and not is_polite for is_kept in kept]


def _is_kept(text: str) -> bool:
    words = normal_form(text)
    return bool(words) and words not in KNOWN_PHRASES and not is_sound_tag(text)
