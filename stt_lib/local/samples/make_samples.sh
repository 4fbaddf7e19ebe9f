#!/usr/bin/env bash
# Makes the sample recordings NAME.opus from the texts NAME.txt beside this
# script.
#
# Needs these Debian packages: flite sox opus-tools
#
# usage: make_samples.sh [-o DIRECTORY] [NAME ...]
#   -o  where to put the recordings (default: beside this script)
#   NAME  which ones to make (default: every NAME.txt)
#
# Marks in a text (everything else is spoken as written):
#   an empty line    a short pause between paragraphs
#   [pause 25]       a line of its own: 25 seconds of nothing but room noise
#   A: or B:         at the start of a line: who speaks it
set -euo pipefail
export LC_ALL=C

RATE=48000
SENTENCE_GAP=0.32     # seconds between two sentences
PARAGRAPH_GAP=0.52    # seconds between two paragraphs, or two speakers
EDGE=0.4              # seconds before the first and after the last word
ROOM_PEAK=-50         # dBFS, peak level of the room noise under everything

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }

# Which flite voice speaks: SPEAKER is A, B or, for a line without one, NAME.
voice_of() {
    case $1 in
        A | birds) echo slt ;;
        *) echo rms ;;
    esac
}

here=$(cd "$(dirname "$0")" && pwd)
out=$here
while getopts o:h option; do
    case $option in
        o) out=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))

for program in flite sox soxi opusenc; do
    command -v "$program" >/dev/null || {
        echo "make_samples.sh: $program is not installed" \
             "(Debian packages: flite sox opus-tools)" >&2
        exit 1
    }
done

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for text in "$here"/*.txt; do
        names+=("$(basename "$text" .txt)")
    done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# silence_part SECONDS: adds that much silence to the parts of the recording
silence_part() {
    local file
    file=$(printf '%s/part%05d.wav' "$work" ${#parts[@]})
    sox -D -n -r $RATE -b 16 -c 1 "$file" trim 0 "$1"
    parts+=("$file")
}

# speech_part VOICE SENTENCE: adds the spoken sentence, its ends trimmed
speech_part() {
    local file
    file=$(printf '%s/part%05d.wav' "$work" ${#parts[@]})
    flite -voice "$1" --setf duration_stretch=1.15 -t "$2" -o "$work/raw.wav"
    sox -D "$work/raw.wav" -r $RATE -b 16 -c 1 "$file" \
        silence 1 0.01 0.2% reverse silence 1 0.01 0.2% reverse norm -4
    parts+=("$file")
}

make_one() {
    local name=$1 gap=$EDGE line speaker sentence seconds
    parts=()
    while IFS= read -r line || [ -n "$line" ]; do
        if [ -z "$line" ]; then
            continue
        fi
        if [[ $line =~ ^\[pause\ ([0-9]+)\]$ ]]; then
            silence_part "${BASH_REMATCH[1]}"
            gap=0
            continue
        fi
        speaker=$name
        if [[ $line =~ ^([AB]):\ (.*)$ ]]; then
            speaker=${BASH_REMATCH[1]}
            line=${BASH_REMATCH[2]}
        fi
        # shellcheck disable=SC2001  # one line for each sentence
        while IFS= read -r sentence; do
            if [ "$gap" != 0 ]; then
                silence_part "$gap"
            fi
            speech_part "$(voice_of "$speaker")" "$sentence"
            gap=$SENTENCE_GAP
        done < <(sed 's/\([.?!]\) /\1\n/g' <<<"$line")
        gap=$PARAGRAPH_GAP
    done <"$here/$name.txt"
    silence_part "$EDGE"

    sox -D "${parts[@]}" "$work/voice.wav"
    seconds=$(soxi -D "$work/voice.wav")
    # -R starts the noise generator from the same seed each time, so that the
    # same versions of the packages make the same file again
    sox -R -D -n -r $RATE -b 16 -c 1 "$work/room.wav" \
        synth "$seconds" pinknoise lowpass 1500 gain -n $ROOM_PEAK
    sox -D -m -v 1 "$work/voice.wav" -v 1 "$work/room.wav" "$work/mix.wav"
    opusenc --quiet --bitrate 24 --speech --serial 1 \
        --title "$name" --comment "COMMENT=synthetic speech (flite)" \
        "$work/mix.wav" "$out/$name.opus"
    rm -f "$work"/*.wav
    printf '%-10s %6.1f s %8d bytes\n' "$name" "$seconds" \
        "$(stat -c %s "$out/$name.opus")"
}

for name in "${names[@]}"; do
    make_one "$name"
done
