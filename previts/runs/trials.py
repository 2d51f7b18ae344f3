"""The trials of a run: each is a row of the paper with a seed, trained on the tubes of one perception.

A perception is what finds and follows the objects of the videos: the settings `fit`, `saliency`, `track` and `filter`.
Rows with equal settings share it. It is named by one of its rows, or by "" if its settings are those without a row.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from previts.config import paper
from previts.config.experiment import Experiment, Plan
from previts.config.profiles import benchmarks_of
from previts.errors import InputError
from previts.storage import fingerprints

# Iterations of a loop, each with two pods. At about 64, the state of a run gets too large for Kubeflow's database.
MAX_ITERATIONS = 63
Item = TypeVar("Item")


@dataclass(frozen=True)
class Trial:
    """A row with a seed.

    Attributes:
        row: The row.
        seed: The seed of its pretraining and of its evaluations.
        plan: Its settings.
        perception: Name of the perception whose tubes it is trained on.
        benchmarks: The benchmarks of its row that fit the profile.
    """

    row: paper.Row
    seed: int
    plan: Plan
    perception: str
    benchmarks: tuple[str, ...]

    @property
    def trained(self) -> str:
        """A fingerprint of what decides the checkpoint; trials with equal ones share it."""
        weights = self.plan.experiment.model.weights
        known = {**self.plan.experiment.learned(), "weights": weights, "perception": self.perception}
        return fingerprints.fingerprint(known)

    def __str__(self) -> str:
        return f"{self.row.name}, seed {self.seed}"


def list_trials(rows: Sequence[str], seeds: Sequence[int], profile: str, set: Sequence[str]) -> list[Trial]:
    """Return all trials of a run: every row with the first seed, then every row with the second one, and so on.

    Raises:
        InputError: If a parameter has a value that does not exist, or if the rows differ in the settings of videos.
    """
    paper.check_seeds(seeds, set)
    used = perceptions(rows, profile, set)
    return [
        Trial(
            row,
            seed,
            paper.resolve(row.name, profile, paper.with_seed(set, seed)),
            used[row.name],
            benchmarks_of(row.benchmarks, profile),
        )
        for seed in seeds
        for row in paper.expand(rows)
    ]


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """Return the first trial of each checkpoint: two steps must not train the same checkpoint at the same time."""
    return list({trial.trained: trial for trial in reversed(trials)}.values())[::-1]


def list_evaluations(trials: Sequence[Trial], benchmarks: Sequence[str]) -> list[tuple[Trial, str]]:
    """Return each pair of a checkpoint, as its first trial, and a benchmark.

    Without `benchmarks`, a checkpoint gets the benchmarks of all rows that share it.
    """
    first = {trial.trained: trial for trial in reversed(trials)}
    pairs = ((trial.trained, benchmark) for trial in trials for benchmark in benchmarks or trial.benchmarks)
    return [(first[trained], benchmark) for trained, benchmark in dict.fromkeys(pairs)]


def evaluation_shares(
    trials: Sequence[Trial], benchmarks: Sequence[str], profile: str
) -> list[list[tuple[Trial, str]]]:
    """Return the shares of `list_evaluations`: one evaluation each, as long as the loop can.

    In the demo, all evaluations of a checkpoint are one share: to start a process or a pod for each would take longer
    than their work.
    """
    pairs = list_evaluations(trials, benchmarks)
    groups: dict[object, list[tuple[Trial, str]]] = {}
    for number, pair in enumerate(pairs):
        groups.setdefault(pair[0].trained if profile == "demo" else number, []).append(pair)
    units = list(groups.values())
    return [[pair for unit in share(units, number) for pair in unit] for number in shares(len(units))]


def shares(count: int) -> list[int]:
    """Return the numbers of the shares into which a loop divides its items: one share an item, as long as it can."""
    return list(range(min(count, MAX_ITERATIONS)))


def share(items: Sequence[Item], number: int) -> Sequence[Item]:
    """Return the items of one of the `shares`."""
    return items[number :: len(shares(len(items)))]


def perceptions(rows: Sequence[str], profile: str, set: Sequence[str]) -> dict[str, str]:
    """Return the name of the perception of each row. Together they are few: each is made once.

    A row without tracking needs the videos, but no tubes. It uses a perception that another row needs, if both have the
    same filter.

    Raises:
        InputError: If the rows differ in the settings of videos, which are stored once for all.
    """
    shared = paper.resolve(None, profile, set).experiment
    experiments = {row.name: paper.resolve(row.name, profile, set).experiment for row in paper.expand(rows)}
    for name, experiment in experiments.items():
        if experiment.video != shared.video:
            raise InputError(
                f"row {name} has other settings of video than the other rows, and the videos are stored once; set "
                "video.* without a row"
            )
    made: dict[str, tuple[str, Experiment]] = {}
    used: dict[str, str] = {}
    tracked = [name for name, experiment in experiments.items() if experiment.sampling.constraint == "tracking"]
    for name in tracked:
        experiment = experiments[name]
        known = "" if _identity(experiment) == _identity(shared) else name
        used[name] = made.setdefault(_identity(experiment), (known, experiment))[0]
    for name, experiment in experiments.items():
        if name not in used:
            candidates = sorted(row for row, other in made.values() if other.filter == experiment.filter)
            known = "" if _identity(experiment) == _identity(shared) else name
            used[name] = candidates[0] if candidates else made.setdefault(_identity(experiment), (known, experiment))[0]
    return {name: used[name] for name in experiments}


def _identity(experiment: Experiment) -> str:
    """Return a fingerprint of what decides the tubes and the filter."""
    method, fit = experiment.saliency.method, experiment.fit
    fitted: dict[str, Any] = asdict(fit) if method == "deepusps" else {"weights": fit.weights}
    if method not in ("deepusps", "supervised"):  # handcrafted: nothing is fitted
        fitted = {}
    parts: dict[str, Any] = {name: asdict(getattr(experiment, name)) for name in ("track", "filter")}
    parts["saliency"] = experiment.saliency.decided()
    return fingerprints.fingerprint({"fit": fitted, **parts})
