"""The function that starts a verb as several processes, on this machine or on a cluster."""

from collections.abc import Sequence

from previts.storage import folders


def start(
    verb: str, uri: str, arguments: Sequence[str], *, launcher: str, processes: int, job: Sequence[str] = ()
) -> str:
    """Run a verb as several processes and wait for its result.

    Args:
        verb: Name of the verb.
        uri: URI of the folder that the verb writes.
        arguments: Command-line arguments of the verb.
        launcher: `local` (this machine) or `pytorchjob` (a Kubernetes cluster).
        processes: Number of processes on all nodes together.
        job: Options of the PyTorchJob as `key=value`.

    Returns:
        The URI of the folder.

    Raises:
        InputError: If the processes fail, or end without a finished folder.
    """
    # Imported here: the verbs import this module also where torchx and kubernetes are not installed.
    from previts.launch.app import training_app

    if launcher == "pytorchjob":
        from previts.launch.launcher import run_on_cluster
        from previts.launch.options import read_options

        options = read_options(job)
        nodes, each = options.nodes(processes)
        app = training_app(verb, each, arguments, nodes=nodes, gpus=each if options.accelerator else 0, target=uri)
        run_on_cluster(app, options, is_finished=lambda: folders.is_committed(uri))
    else:
        from previts.launch.local import run_locally

        run_locally(training_app(verb, processes, arguments), processes)
    folders.read_manifest(uri)  # raises if the folder is not finished
    return uri
