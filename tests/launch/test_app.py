"""The training app: the command of its role as torchrun itself parses it."""

import os
import sys
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

from previts.launch.app import TARGET, torchx_component, training_app


def torchrun_options(args: list[str]) -> Any:
    assert args[:2] == ["-m", "torch.distributed.run"]
    return get_args_parser().parse_args(args[2:])


@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_starts_the_verb_on_each_node_with_its_processes(nodes):
    app = training_app("evaluate", 4, ["--row", "6a/x", "--set", "a=1"], nodes=nodes, gpus=4, target="gs://b/results/x")
    (role,) = app.roles
    options = torchrun_options(role.args)
    assert options.nproc_per_node == "4"
    assert options.standalone == (nodes == 1)  # several nodes get their meeting point from the environment
    assert (options.module, options.training_script) == (True, "previts")
    assert options.training_script_args == ["evaluate", "--row", "6a/x", "--set", "a=1"]
    assert (role.num_replicas, role.resource.gpu, role.resource.cpu) == (nodes, 4, 4)
    assert app.metadata == {TARGET: "gs://b/results/x"}


def test_without_an_image_this_interpreter_runs_the_program():
    (role,) = training_app("pretrain", 1, []).roles
    assert (role.entrypoint, role.image) == (sys.executable, os.getcwd())
    (role,) = training_app("pretrain", 1, [], image="registry/train:1").roles
    assert (role.entrypoint, role.image) == ("python", "registry/train:1")


def test_only_variables_of_the_program_are_in_the_environment(monkeypatch):
    monkeypatch.setenv("PREVITS_WORKERS", "3")
    monkeypatch.setenv("UNRELATED_VARIABLE", "x")
    (role,) = training_app("pretrain", 1, []).roles
    assert role.env["PREVITS_WORKERS"] == "3"
    assert "UNRELATED_VARIABLE" not in role.env


def test_the_component_of_torchx_is_the_same_app():
    arguments = ["--row", "1/vgg/previts"]
    component = torchx_component("pretrain", *arguments, processes=2, nodes=2, image="i", gpus=2)
    assert component == training_app("pretrain", 2, arguments, nodes=2, image="i", gpus=2)
