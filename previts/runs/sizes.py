"""What the large steps of a run request from a cluster, by profile. The small steps have fixed sizes.

An amount is both request and limit. It is a text, because KFP's driver reads no numbers here, and refuses empty ones.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from previts.config.fields import require, unknown_name

CPU, MEMORY = re.compile(r"[1-9]\d*(m|\.\d+)?|0\.\d*[1-9]\d*"), re.compile(r"[1-9]\d*(Mi|Gi|Ti|M|G|T)")


@dataclass(frozen=True)
class Sizes:
    """Cores and memory of the large steps, as amounts of Kubernetes.

    Attributes:
        cpu: Cores of each large step except `report`. A step starts one process for each core.
        data_memory: Memory of `download`, `track` and `index`.
        saliency_memory: Memory of `saliency`.
        training_memory: Memory of `fit-saliency`, `pretrain` and `evaluate`.
        report_cpu: Cores of `report`.
        report_memory: Memory of `report`.
    """

    cpu: str = "8"
    data_memory: str = "16Gi"
    saliency_memory: str = "24Gi"
    training_memory: str = "48Gi"
    report_cpu: str = "2"
    report_memory: str = "8Gi"


# Two steps of the demo at once fit a node with 2 cores and 8 GB.
PROFILES = {
    "paper": Sizes(),
    "demo": Sizes(
        cpu="900m",
        data_memory="3Gi",
        saliency_memory="3Gi",
        training_memory="3Gi",
        report_cpu="900m",
        report_memory="3Gi",
    ),
}


def sizes(profile: str, changes: Mapping[str, str]) -> Sizes:
    """Return the sizes of a profile with changes.

    Raises:
        InputError: If a name is unknown, or a value is not an amount.
    """
    known = [field.name for field in fields(Sizes)]
    for name, value in changes.items():
        if name not in known:
            raise unknown_name(name, known, "size")
        pattern, allowed = (CPU, "cores such as 2 or 900m") if name.endswith("cpu") else (MEMORY, "memory such as 6Gi")
        holds = isinstance(value, str) and bool(pattern.fullmatch(value))
        require(f"sizes: {name}", repr(value), f"{allowed}, as text", holds)
    return replace(PROFILES[profile], **changes)
