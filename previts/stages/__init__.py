"""The eight verbs, each a function from URIs to a URI, and `world`, which makes data to try them on.

Python, the command line and the KFP components call these functions with the same signature. Each verb computes the
address of its output and returns it if the output is finished. Otherwise it loads its inputs, calls one function and
commits the result. A second call with the same decisions does nothing. Heavy libraries are imported only if work is
left to do.

Fan-out: a worker calls `download`, `saliency` or `track` with `part` of `parts` and takes every parts-th shard. The
worker that finishes the last shard commits the whole output.
"""

from previts.stages.download import download
from previts.stages.evaluate import evaluate
from previts.stages.fit_saliency import fit_saliency
from previts.stages.index import index
from previts.stages.pretrain import pretrain
from previts.stages.report import report
from previts.stages.saliency import saliency
from previts.stages.track import track
from previts.stages.world import world

# The order of a run; isort sorts the imports by name.
__all__ = ["world", "download", "fit_saliency", "saliency", "track", "index", "pretrain", "evaluate", "report"]  # noqa: RUF022
