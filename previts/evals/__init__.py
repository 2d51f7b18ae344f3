"""The benchmarks of the paper: one file per family, one function to run any of them by name.

PreViTS section 4. An evaluation reads a finished model and a labelled dataset; it never changes the model's weights.
"""

import difflib
from typing import TYPE_CHECKING

from previts import storage
from previts.errors import InputError
from previts.evals.protocol import BENCHMARKS, FOLDERS, Outcome
from previts.experiment import EvaluationConfig

if TYPE_CHECKING:
    from previts.moco import MoCo

__all__ = ["BENCHMARKS", "EvaluationConfig", "Outcome", "evaluate"]


def evaluate(benchmark: str, model: "MoCo", datasets_uri: str, config: EvaluationConfig) -> Outcome:
    """Run one benchmark on a model, on the device where the model is.

    Args:
        benchmark: One of `BENCHMARKS`.
        model: From `checkpoint.load_model`; put into eval mode, its weights are left as they are.
        datasets_uri: Folder that holds `voc`, `imagenet`, `in9` and `davis` in their official layouts.
        config: Settings of all benchmarks.

    Raises:
        InputError: If the benchmark is unknown, or a file of its layout is missing or damaged.
    """
    # Imported here: the names above are wanted by the command line, which must not wait for torch and scikit-learn.
    from previts.evals import backgrounds, davis, linear

    if benchmark not in FOLDERS:
        close = difflib.get_close_matches(benchmark, BENCHMARKS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"unknown benchmark {benchmark!r}, expected one of {', '.join(BENCHMARKS)}{hint}")
    data_uri = storage.join(datasets_uri, FOLDERS[benchmark])
    model.eval()
    match benchmark:
        case "voc07":
            return linear.voc07(model, data_uri, config)
        case "in1k":
            return linear.imagenet(model, data_uri, config)
        case "davis":
            return davis.track(model, data_uri, config)
        case _:
            return backgrounds.challenge(model, data_uri, storage.join(datasets_uri, FOLDERS["in1k"]), config)
