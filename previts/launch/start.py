"""Start a verb as several processes, on this machine or on a cluster."""

from collections.abc import Sequence

from previts.storage import folders


def start(verb: str, uri: str, arguments: Sequence[str], launcher: str, processes: int, job: Sequence[str] = ()) -> str:
    """Have a verb done by several processes, and return what they made."""
    from previts.launch.app import training_app

    match launcher:
        case "pytorchjob":
            from previts.launch.launcher import run_on_cluster
            from previts.launch.options import read_options

            options = read_options(job)
            nodes, each = options.nodes(processes)
            app = training_app(verb, each, arguments, nodes, gpus=each if options.accelerator else 0, target=uri)
            run_on_cluster(app, options, is_finished=lambda: folders.is_committed(uri))
        case _:
            from previts.launch.local import run_locally

            run_locally(training_app(verb, processes, arguments))
    folders.read_manifest(uri)
    return uri
