"""Choice of who shares seeded work: processes of this machine, or a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from gatort.policies.loading import CPU_ENGINES, EngineName
from gatort.runtime.errors import ConfigError
from gatort.runtime.grant import read_grant
from gatort.runtime.packages import require_packages
from gatort.sim.portable import Workers

from .refusals import refuse_ignored


def sharing(
    workers: int | None, cluster: str | None, engines: Sequence[EngineName] = ()
) -> Workers:
    """Return who shares the work: a cluster if one is given, else processes of this machine.

    Raises:
        ConfigError: both are given, or an engine is not for a CPU and has to stay here.
        MissingDependency: Ray is not installed.
    """
    on_gpu = [engine for engine in engines if engine not in CPU_ENGINES]
    if cluster is None:
        # A GPU shares itself out, and every process would load its own copy of the weights.
        return workers or (1 if on_gpu else read_grant().processors)
    refuse_ignored("with --cluster, which has a worker per processor", workers=workers)
    if on_gpu:
        raise ConfigError(
            f"--cluster: expected an engine on a CPU ({', '.join(CPU_ENGINES)}), found {on_gpu[0]}"
        )
    require_packages("--cluster", "cluster", "ray", "grpcio")
    return cluster
