"""Rollouts: playing episodes with policies.

| maker | stacks over time | resets | compiles |
|---|---|---|---|
| `make_rollout` | nothing: returns, lengths | never: masks or leaves what has ended | all of it, when jitted |
| `make_recorded_rollout` | every step, up to `max_steps` | never: masks what has ended | all of it, when jitted |
| `make_auto_reset_rollout` | every step, `num_steps` of them | wherever an episode ends | all of it, when jitted |
| `make_host_rollout` | nothing: returns, lengths | never: simulates only living episodes | the choice of actions |
| `make_host_recorded_rollout` | every step, on the host | never: likewise | the choice of actions |
| `make_image_rollout` | nothing: whether classes are right | never: an episode is one image | all of it |

`compiled_rollout` is `make_rollout`, jitted, `make_host_rollout` or `make_image_rollout`, as the environment asks for.
All of them keep two rules. An episode is truncated after the environment's `max_steps` steps, whatever its own
`truncated` says, unless it terminates there. An episode diverges, which ends it, where an action, observation or
reward is not finite or a floating leaf of its state holds a NaN (an infinite number in a state is allowed): its return
is then NaN, the step is marked `diverged`, and recorded episodes are cut before it. A policy over discrete actions has
diverged where its distribution holds a NaN; recorded episodes see no distribution, only actions.
"""

from hades.rollouts.auto_reset import (
    AutoResetRollout,
    CollectedSteps,
    CollectionNoise,
    RunningEpisodes,
    begin_episodes,
    make_auto_reset_rollout,
)
from hades.rollouts.first_episode import EpisodeReturns, Rollout, make_rollout
from hades.rollouts.host import compiled_rollout, make_host_recorded_rollout, make_host_rollout
from hades.rollouts.images import make_image_rollout
from hades.rollouts.recorded import RecordedEpisodes, RecordedRollout, make_recorded_rollout
from hades.rollouts.settings import PlaySettings

__all__ = [
    "AutoResetRollout",
    "CollectedSteps",
    "CollectionNoise",
    "EpisodeReturns",
    "PlaySettings",
    "RecordedEpisodes",
    "RecordedRollout",
    "Rollout",
    "RunningEpisodes",
    "begin_episodes",
    "compiled_rollout",
    "make_auto_reset_rollout",
    "make_host_recorded_rollout",
    "make_host_rollout",
    "make_image_rollout",
    "make_recorded_rollout",
    "make_rollout",
]
