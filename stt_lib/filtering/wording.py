"""Evidence in words, for a person who asks why a segment was dropped or kept."""

from stt_lib.filtering.evidence import Clue
from stt_lib.filtering.weights import Reason

_WORDS = {
    Reason.BLANK: "there is no word in it",
    Reason.SOUND_TAG: "it names a sound instead of words",
    Reason.KNOWN_PHRASE: "nobody says this to a recorder, Whisper writes it under noise",
    Reason.COMMON_PHRASE: "people say this, but Whisper also writes it under noise",
    Reason.OWN_PHRASE: "your own phrases say to keep it",
    Reason.SHORT: "how many words it has: {:.0f}",
    Reason.ALONE: "nothing longer is said near it",
    Reason.NO_SPEECH_PROB: "the model's probability of no speech is {:.2f}",
    Reason.AVG_LOGPROB: "the model's mean log probability of the words is {:.2f}",
    Reason.COMPRESSION_RATIO: "the server's compression ratio is {:.1f}",
    Reason.LOOP: "its own text compresses to 1/{:.1f}: it goes round and round",
    Reason.REPEATED: "it was said before, {:.0f} times in a row",
    Reason.WORDS_PER_SECOND: "words per second: {:.1f}",
    Reason.VAD_PROB: "the detector's probability of speech is {:.2f}",
    Reason.LANGUAGE: "it is not in the language around it",
    Reason.LANGUAGE_PROB: "the language was recognised with probability {:.2f}",
}


def in_words(clue: Clue) -> str:
    """One piece of evidence as a person reads it, points first."""
    return f"{clue.points:+.1f} {_WORDS[clue.reason].format(clue.value)}"
