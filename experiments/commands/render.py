"""`hades render`: the film of a freshly trained policy as a GIF."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments.arguments import parse, print_json, with_folder
from experiments.report.gif import make_gif
from experiments.report.playing import make_actors
from experiments.report.subject import load_subject
from experiments.settings import SeededSettings
from hades._files import write_atomically


@dataclass(frozen=True, kw_only=True)
class RenderSettings(SeededSettings):
    """Films an episode of a policy as an animated GIF: one that a dataset trains, or that of a policy or teacher file.

    An environment that cannot be drawn becomes curves of its observations and actions.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run directory, or dataset, policy or teacher file."""
    out: Path
    """Film to write (.gif)."""
    width: int = 480
    """Pixels."""
    max_frames: int = 400
    """Frames, evenly spread over the episode where it has more steps."""

    def __post_init__(self) -> None:
        """Refuses also sizes that are not positive, and a film of another suffix."""
        super().__post_init__()
        self.require_positive("width", "max_frames")
        if self.out.suffix != ".gif":
            raise ValueError(f"out: expected a name that ends in .gif, got {self.out}")


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code."""
    settings = parse(RenderSettings, "render", arguments)
    began = time.monotonic()
    subject = load_subject(settings.run)
    # A folder that cannot be made is told before the work.
    out = with_folder(settings.out)
    actors = make_actors(subject, settings.seed, num_inits=1, num_episodes=1)
    episode = actors.play(actors.networks).episode
    if episode is None:
        raise ValueError(f"{settings.run}: expected a policy that acts, but its first step is not finite")
    film = actors.scene.draw(episode)
    content = make_gif(film, settings.width, settings.max_frames)
    write_atomically(out, content)
    seconds, total = time.monotonic() - began, float(np.sum(episode.rewards, dtype=np.float64))
    played = f"{len(episode)} steps, return {total:,.4g}"
    print(f"{played}: written to {settings.out}, {len(content) / 1e6:.2f} MB, {seconds:.1f} s")
    if settings.json:
        result = {"out": str(settings.out), "steps": len(episode), "return": total, "bytes": len(content)}
        print_json(result | {"seconds": seconds, "note": film.note})
    return 0
