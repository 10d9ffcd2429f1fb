"""A run of ffmpeg that does not advance is ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from beeq.media.errors import MediaFailed
from beeq.media.ffmpeg import FFmpeg
from beeq.media.limits import MediaLimits
from beeq.processors.base import ProcessorSettings

IMPATIENT = FFmpeg(MediaLimits(stall_s=0.5))


async def test_an_ffmpeg_that_stands_still_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text('#!/bin/sh\n[ "$*" = -version ] && exit\necho frame=1\nexec sleep 600\n')
    script.chmod(0o755)
    monkeypatch.setattr("beeq.media.ffmpeg.find_ffmpeg", lambda: str(script))
    with pytest.raises(MediaFailed, match=r"has not advanced for 0\.5 s \(BEEQ_MEDIA_STALL_S\)"):
        await IMPATIENT.run([], [])


@pytest.mark.ffmpeg
async def test_an_ffmpeg_that_advances_may_take_longer() -> None:
    slowly = ("-re", "-f", "lavfi", "-i", "sine=d=1.5", "-f", "null", "-")
    assert (await IMPATIENT.run(slowly, [])).exit_status == 0


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "1e3", "nan"])
def test_a_bad_time_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BEEQ_MEDIA_STALL_S must be a number above 0"):
        ProcessorSettings.from_environment({"BEEQ_MEDIA_ROOT": str(tmp_path), "BEEQ_MEDIA_STALL_S": text})
    given = {"BEEQ_MEDIA_ROOT": str(tmp_path), "BEEQ_MEDIA_STALL_S": "2.5"}
    assert ProcessorSettings.from_environment(given).media_limits == MediaLimits(stall_s=2.5)
