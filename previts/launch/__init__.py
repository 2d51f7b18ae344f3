"""Launchers of the training program: one torchx `AppDef`, run on this machine or as a PyTorchJob of a cluster.

`app` describes the program; `local` runs it by torchx's `local_cwd`; `options` and `pytorchjob` say what a cluster is
asked for, without asking; `cluster`, `watch` and `diagnosis` talk to its API server; `launcher` waits for the end;
`scheduler` makes the same available to torchx; `reaper` deletes jobs whose launcher died. Nothing here knows what is
trained, and no setting of a launcher is part of an experiment's identity.
"""
