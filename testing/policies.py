"""A policy that commands given actions in turn, to drive a robot without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.policy import Policy
from gatort.runtime.spec import Interface, ModelDims, PolicySpec
from gatort.runtime.tokenizer import Tokenizer


def scripted_policy(interface: Interface, actions: Sequence[ArrayLike]) -> Policy:
    """Return a policy that commands the actions in turn, and again from the first.

    Args:
        interface: interface of the robot to drive.
        actions: (N, A) in each actuator's unit. Each value is rounded to its nearest bin.
    """
    spec = PolicySpec(
        observations=interface.observations,
        actuators=interface.actuators,
        control_hz=interface.control_hz,
        action_delay_ms=interface.action_delay_ms,
        window_frames=1,
    )
    # The engine ignores the frame, so the smallest model that the frame fits will do.
    dims = ModelDims(
        layers=1,
        heads=1,
        head_size=2,
        width=2,
        ff_half_width=2,
        first_token_id=0,
        local_positions=spec.frame_tokens,
    )
    tokens = Tokenizer(spec).encode_action(np.asarray(actions, np.float64))  # (N, A)
    return Policy(spec, dims, ScriptedEngine(tokens.ravel().tolist()))
