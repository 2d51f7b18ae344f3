"""What the accounts may do on the node, compared with the table of k8s/README.md."""

import re

import pytest
from manifests import Document, Right, listed_rights
from node import Node

pytestmark = pytest.mark.cluster

SPACES = ("previts", "kubeflow", "default", "kube-system")
# A line of `kubectl auth can-i --list`: a resource, and three lists in brackets.
LINE = re.compile(r"^(\S*)\s*\[(.*?)\]\s*\[(.*?)\]\s*\[(.*?)\]$")


def may(node: Node, account: str, space: str) -> set[Right]:
    """Return what an account of the namespace `previts` may do in a namespace: resources, and paths of the server."""
    user = f"--as=system:serviceaccount:previts:{account}"
    text = node.kubectl("auth", "can-i", "--list", user, "--namespace", space)
    found: set[Right] = set()
    for line in text.splitlines()[1:]:
        cells = LINE.match(line)
        assert cells is not None, line
        resource, paths, names, verbs = cells.groups()
        found |= {
            (what, name, verb)
            for what in ([_as_listed(resource)] if resource else paths.split())
            for name in names.split() or [""]
            for verb in verbs.split()
        }
    return found


def _as_listed(resource: str) -> str:
    """Return `NAME.GROUP/PART` as the table writes it: `NAME/PART.GROUP`."""
    whole, slash, part = resource.partition("/")
    name, dot, group = whole.partition(".")
    return f"{name}{slash}{part}{dot}{group}"


@pytest.mark.parametrize("account", listed_rights())
def test_an_account_has_the_rights_of_the_table_and_no_others(node: Node, namespace: list[Document], account: str):
    for space in SPACES:
        own = may(node, account, space) - may(node, "without-bindings", space)
        assert own == (listed_rights("local")[account] if space == "previts" else set()), space


def test_what_every_account_may_do_changes_nothing_and_reads_nothing_of_others(node: Node, namespace: list[Document]):
    for space in SPACES:
        common = may(node, "without-bindings", space)
        assert ("selfsubjectaccessreviews.authorization.k8s.io", "", "create") in common
        assert {what for what, _, verb in common if verb != "get"} == {
            "selfsubjectreviews.authentication.k8s.io",
            "selfsubjectaccessreviews.authorization.k8s.io",
            "selfsubjectrulesreviews.authorization.k8s.io",
        }
        assert all(what.startswith("/") for what, _, verb in common if verb == "get")
